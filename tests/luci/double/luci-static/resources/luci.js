'use strict';

class Base {
	constructor(...args) {
		this.__init__?.(...args);
	}

	static extend(members) {
		const made = class extends this {};

		Object.assign(made.prototype, members);

		return made;
	}
}

const dom = {
	append(node, children) {
		if (Array.isArray(children))
			children.filter(child => child !== null && child !== undefined).forEach(child => node.append(child));
		else if (children instanceof Node)
			node.append(children);
		else if (children !== null && children !== undefined)
			node.innerHTML = String(children);
	},

	content(node, children) {
		node.replaceChildren();
		dom.append(node, children);
	}
};

function E(name, attributes, children) {
	const node = document.createElement(name);

	for (const [ attribute, value ] of Object.entries(attributes ?? {})) {
		if (typeof value == 'function')
			node.addEventListener(attribute, value);
		else if (value !== null && value !== undefined)
			node.setAttribute(attribute, value);
	}

	dom.append(node, children);

	return node;
}

const poll = {
	queue: [],

	add(run, seconds) {
		poll.queue.push({ run, seconds, idle: true });
	},

	start() {
		let tick = 0;

		window.setInterval(() => {
			for (const entry of poll.queue) {
				if (tick % entry.seconds || !entry.idle)
					continue;

				entry.idle = false;
				Promise.resolve(entry.run()).finally(() => { entry.idle = true });
			}

			tick++;
		}, 1000);
	}
};

/* Loads, renders, and puts buttons below what has something to save. */
class View extends Base {
	async __init__() {
		const place = document.getElementById('view');
		const node = await this.render(await this.load?.());

		dom.content(place, node);

		if (this.handleSave !== null)
			dom.append(place, this.footer());
	}

	async handleSave() {
		for (const map of document.querySelectorAll('.cbi-map'))
			await map.map.save();
	}

	footer() {
		const disabled = L.hasViewPermission() ? null : '';
		const saved = (then) => () => this.handleSave().then(then).catch(error => L.ui.showModal('Save error', [
			E('p', {}, [ error.message ]),
			E('button', { 'click': () => L.ui.hideModal() }, [ 'Dismiss' ])
		]));

		return E('div', { 'class': 'cbi-page-actions' }, [
			E('button', { disabled, 'click': saved(() => fetch(L.url('admin/uci/apply_rollback'), { method: 'POST' })) }, [ 'Save & Apply' ]),
			E('button', { disabled, 'click': saved() }, [ 'Save' ])
		]);
	}
}

class LuCI {
	constructor(env) {
		this.env = env;
		this.loaded = false;
		this.classes = { baseclass: Base, view: View, dom, poll };
		document.addEventListener('DOMContentLoaded', () => {
			this.loaded = true;
			poll.start();
		});
	}

	url(...parts) {
		return [ this.env.scriptname, ...parts ].join('/');
	}

	hasViewPermission() {
		return this.env.nodespec.satisfied ? !this.env.nodespec.readonly : null;
	}

	async require(name) {
		return this.classes[name] ??= this.load(name);
	}

	async load(name) {
		const path = '%s/%s.js'.format(this.env.base_url, name.replaceAll('.', '/'));
		const source = await (await fetch(path)).text();
		const needs = [ ...source.matchAll(/^'require (\S+)(?: as (\S+))?';$/gm) ];
		const given = await Promise.all(needs.map(([ , path ]) => this.require(path)));
		const names = needs.map(([ , path, as ]) => as ?? path.replace(/\W/g, '_'));
		const made = new Function('window', 'document', 'L', ...names, source + '\n//# sourceURL=' + path)(window, document, this, ...given);

		return this.classes[name] = this[name] = new made();
	}
}

window.E = E;
window.LuCI = LuCI;
