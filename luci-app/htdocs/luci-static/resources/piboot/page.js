'use strict';
'require baseclass';
'require dom';
'require poll';
'require uci';
'require ui';
'require piboot.text as text';

/* What all pages of piboot have in common: one poll, one place for what went wrong, jobs as bars, dialogs. */

/* Seconds between two looks: the first while something moves, the second otherwise. */
const FAST = 1, SLOW = 5;

/* Whether this login may change anything. */
function mayWrite() {
	return L.hasViewPermission() === true;
}

/* E() takes a lone string for HTML. */
function paragraph(...words) {
	return E('p', {}, words);
}

/* What to do about an agent that is not there depends on whether it is meant to be. */
function explain(error) {
	if (error.code != 'absent')
		return Promise.resolve([ error.message ]);

	return uci.load('piboot').then(() => uci.get('piboot', 'main', 'enabled'), () => null).then(enabled => {
		const off = enabled !== null && ![ '1', 'on', 'true', 'yes', 'enabled' ].includes(enabled ?? '0');

		return off ? [
			_('Network boot is switched off.'), ' ',
			E('a', { 'href': L.url('admin/services/piboot/settings') }, [ _('Switch it on in the settings') ]), '.'
		] : [
			error.message, ' ',
			_('Pis that are up wait for it, others do not boot. It is restarted by itself within seconds; if it is not, start "piboot" at'), ' ',
			E('a', { 'href': L.url('admin/system/startup') }, [ _('System ▸ Startup') ]), ' ',
			_('and look into the system log.')
		];
	});
}

/*
 * Runs a page: `fetch()` gives a promise of data, `show(data)` puts it on the page, `busy(data)` says whether something
 * moves. Nothing is asked while nobody sees the page. Returns the nodes for errors, and `look()` for "now".
 */
function run(page) {
	const banner = E('div');
	const state = { wait: 0, looking: null, shown: null };

	/* Empty tables would say that there is nothing. */
	page.content.style.display = 'none';

	const fail = (error) => explain(error).then(words => {
		const sign = error.code + error.message;

		if (state.shown !== sign)
			dom.content(banner, E('div', { 'class': 'alert-message warning' }, [ E('p', {}, words) ]));

		state.shown = sign;
		page.content.style.opacity = 0.5;
	});

	const done = (data) => {
		if (state.shown !== null)
			dom.content(banner, null);

		state.shown = null;
		page.content.style.opacity = page.content.style.display = '';
		page.show(data);
		state.wait = page.busy?.(data) ? FAST : SLOW;
	};

	/* Two looks that are asked for while one is under way are one. */
	const look = () => {
		if (state.looking)
			return state.looking.then(() => state.again ??= look().finally(() => { state.again = null }));

		state.wait = SLOW;
		state.looking = Promise.resolve().then(page.fetch).then(done).catch(fail)
			.finally(() => { state.looking = null });

		return state.looking;
	};

	document.addEventListener('visibilitychange', () => {
		if (!document.hidden)
			look();
	});

	poll.add(() => {
		if (document.hidden || --state.wait > 0)
			return Promise.resolve();

		return look();
	}, 1);

	return { banner, look };
}

/* The word for a state. No theme has a class for what is bad. */
function label(word, style) {
	const bad = ';background-color:var(--error-color-high,#c00);color:var(--on-error-color,#fff)';

	return E('span', { 'class': 'label ' + style, 'style': 'margin-left:0' + (style == 'error' ? bad : '') }, [ word ]);
}

/* A second line, in small print, of a cell. */
function below(words) {
	return words ? E('div', { 'style': 'opacity:.75' }, [ E('small', {}, [ words ]) ]) : '';
}

/* A link that looks like a button. */
function linkButton(words, address) {
	return E('a', {
		'class': 'btn cbi-button cbi-button-neutral',
		'style': 'text-align:center;justify-content:center;white-space:nowrap',
		'href': address
	}, [ words ]);
}

/* Gives the browser a file to keep. */
function save(name, content, type) {
	const url = URL.createObjectURL(new Blob([ content ], { type }));
	const link = E('a', { 'href': url, 'download': name });

	document.body.appendChild(link);
	link.click();
	link.remove();
	window.setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/* A bar for a job. `cancel(job)` is absent where the job may not be cancelled. */
const JobBar = baseclass.extend({
	__init__(cancel) {
		this.job = null;
		this.title = E('strong');
		this.fill = E('div');
		this.bar = E('div', { 'class': 'cbi-progressbar' }, [ this.fill ]);
		/* Digests and addresses are longer than a phone is wide. */
		this.line = E('div', { 'style': 'overflow-wrap:anywhere' });
		this.stop = cancel ? E('button', {
			'class': 'btn cbi-button cbi-button-negative',
			'click': ui.createHandlerFn(this, () => cancel(this.job))
		}, [ _('Cancel') ]) : null;
		this.node = E('div', { 'class': 'piboot-job', 'style': 'margin:.5em 0' }, [
			this.title, this.bar, this.line, this.stop
		]);
	},

	/* Bytes a second since the job was first seen; nothing before that says anything. */
	rate(job) {
		const now = performance.now();

		if (this.since === undefined || job.bytes < this.since.bytes || job.state == 'waiting')
			this.since = { bytes: job.bytes, at: now };

		return now - this.since.at > 2500 ? (job.bytes - this.since.bytes) * 1000 / (now - this.since.at) : null;
	},

	update(job) {
		const over = text.jobIsOver(job);
		const share = text.percent(job);

		this.job = job;
		this.title.textContent = text.jobTitle(job);
		this.bar.style.display = over ? 'none' : '';
		this.bar.title = share === null ? text.jobLine(job) : '%d %%'.format(share);
		this.fill.style.width = '%d%%'.format(share ?? 0);
		this.line.textContent = text.jobLine(job, over ? null : this.rate(job));
		this.line.className = job.state == 'failed' || job.state == 'interrupted' ? 'alert-message error' : '';

		if (this.stop)
			this.stop.style.display = over ? 'none' : '';
	}
});

/* A bar for a file on its way. */
const SendBar = baseclass.extend({
	__init__(title, cancel) {
		this.fill = E('div');
		this.bar = E('div', { 'class': 'cbi-progressbar', 'role': 'progressbar' }, [ this.fill ]);
		this.line = E('div', { 'role': 'status' });
		this.node = E('div', { 'class': 'piboot-upload', 'style': 'margin:.5em 0' }, [
			E('strong', {}, [ title ]), this.bar, this.line,
			E('button', { 'class': 'btn cbi-button cbi-button-negative', 'click': ui.createHandlerFn(this, cancel) }, [ _('Cancel') ])
		]);
	},

	update({ sent, total, rate, left, waits }) {
		const share = total > 0 ? Math.floor(100 * sent / total) : 0;

		this.fill.style.width = '%d%%'.format(share);
		this.bar.title = '%d %%'.format(share);
		this.line.textContent = waits !== null ? _('%s It is tried again.').format(waits) : [
			'%d %%'.format(share), _('%s of %s').format(text.bytes(sent), text.bytes(total)), text.pace(rate, left)
		].filter(part => part).join(', ');
	}
});

function sendBar(title, cancel) {
	return new SendBar(title, cancel);
}

function jobBar(cancel) {
	return new JobBar(cancel);
}

/* A dialog with its buttons below. Strings in `nodes` become text. */
function dialog(title, nodes, buttons) {
	return ui.showModal([ title ], [].concat(nodes, [
		E('div', { 'class': 'right' }, [].concat(...buttons.map(button => [ ' ', button ])))
	]));
}

function closeButton(label, after) {
	return E('button', {
		'class': 'btn cbi-button',
		'click': () => { ui.hideModal(); after?.() }
	}, [ label ?? _('Close') ]);
}

/* Puts what went wrong with an action where the action was begun. */
function complain(node, error) {
	return explain(error).then(words =>
		dom.content(node, E('div', { 'class': 'alert-message error', 'style': 'overflow-wrap:anywhere' }, [ E('p', {}, words) ])));
}

/* A row of a form, in the theme's own shape. `check(value)` gives null or a sentence, while one types. */
function field(label, input, help, check) {
	const hint = E('div', { 'class': 'cbi-value-description' }, [ help ?? '' ]);
	const row = E('div', { 'class': 'cbi-value' }, [
		E('label', { 'class': 'cbi-value-title', 'for': input.id }, [ label ]),
		E('div', { 'class': 'cbi-value-field' }, [ input, hint ])
	]);

	const verify = () => {
		const wrong = check?.(input.value) ?? null;

		hint.textContent = wrong ?? help ?? '';
		hint.style.color = wrong ? 'var(--error-color-medium, #c00)' : '';
		input.classList.toggle('cbi-input-invalid', wrong !== null);

		return wrong === null;
	};

	input.addEventListener('input', verify);

	return { row, input, verify };
}

/* A box to be ticked, with words beside it. */
function check(label, id, checked, words) {
	const input = E('input', { 'type': 'checkbox', 'id': id, 'checked': checked ? '' : null });

	return {
		input,
		row: E('div', { 'class': 'cbi-value' }, [
			E('label', { 'class': 'cbi-value-title', 'for': id }, [ label ]),
			E('div', { 'class': 'cbi-value-field' }, [ E('label', {}, [ input, ' ', words ]) ])
		])
	};
}

return baseclass.extend({
	mayWrite, paragraph, explain, run, label, below, linkButton, save, jobBar, sendBar, dialog, closeButton, complain, field, check
});
