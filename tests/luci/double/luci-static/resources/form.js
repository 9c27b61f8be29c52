'use strict';
'require baseclass';
'require uci';

const Option = baseclass.extend({
	__init__(section, name, title, help) {
		Object.assign(this, { section, option: name, title, help, choices: [], rmempty: true });
	},

	value(value, label) {
		this.choices.push([ value, label ?? value ]);
	},

	depends(option, value) {
		this.needs = { option, value };
	},

	/* Whether what it depends on is chosen. */
	isActive() {
		return !this.needs || this.section.options().find(other => other.option == this.needs.option).entered() == this.needs.value;
	},

	stored() {
		return uci.get(this.section.map.config, this.section.name, this.option) ?? this.default;
	},

	widget(disabled) {
		this.input = E('input', { 'type': 'text', disabled, 'class': 'cbi-input-text', 'placeholder': this.placeholder, 'value': this.stored() });

		return this.input;
	},

	entered() {
		return this.input.value;
	},

	/* What is to be stored; null takes the option out. */
	parse() {
		const value = this.entered();
		const empty = value.length == 0;
		const said = empty ? true : this.validate?.(this.section.name, value) ?? true;

		if (said !== true)
			throw new Error('Option "%s" contains an invalid input value. %s'.format(this.title, said));

		return empty || this.rmempty && value === this.default ? null : value;
	},

	render(disabled) {
		this.node = E('div', { 'class': 'cbi-value', 'data-name': this.option }, [
			E('label', { 'class': 'cbi-value-title' }, [ this.title ]),
			E('div', { 'class': 'cbi-value-field' }, [ this.widget(disabled), E('div', { 'class': 'cbi-value-description' }, this.help) ])
		]);

		return this.node;
	}
});

const Flag = Option.extend({
	widget(disabled) {
		this.input = E('input', { 'type': 'checkbox', disabled, 'checked': this.stored() == '1' ? '' : null });

		return this.input;
	},

	entered() {
		return this.input.checked ? '1' : this.rmempty ? '' : '0';
	}
});

const ListValue = Option.extend({
	widget(disabled) {
		this.input = E('select', { disabled }, this.choices.map(([ value, label ]) =>
			E('option', { value, 'selected': value == this.stored() ? '' : null }, [ label ])));

		return this.input;
	}
});

const DynamicList = Option.extend({
	widget(disabled) {
		this.inputs = [].concat(this.stored() ?? [], '').map(value => E('input', { 'type': 'text', disabled, value }));

		return E('div', {}, this.inputs);
	},

	entered() {
		return this.inputs.map(input => input.value).filter(value => value != '');
	}
});

const NamedSection = baseclass.extend({
	__init__(map, name) {
		Object.assign(this, { map, name, tabs: new Map() });
	},

	tab(name, title) {
		this.tabs.set(name, { title, options: [], node: E('div', { 'data-tab': name }) });
	},

	taboption(tab, kind, ...args) {
		const option = new kind(this, ...args);

		this.tabs.get(tab).options.push(option);

		return option;
	},

	options() {
		return [ ...this.tabs.values() ].flatMap(tab => tab.options);
	},

	checkDepends() {
		this.options().forEach(option => { option.node.style.display = option.isActive() ? '' : 'none' });
	},

	show(name) {
		this.tabs.forEach((tab, other) => { tab.node.style.display = other == name ? '' : 'none' });
	},

	render(disabled) {
		const menu = [ ...this.tabs ].map(([ name, tab ]) => E('li', { 'data-tab': name }, [
			E('a', { 'href': '#', 'click': (event) => { event.preventDefault(); this.show(name) } }, [ tab.title ])
		]));

		this.tabs.forEach(tab => tab.node.append(...tab.options.map(option => option.render(disabled))));
		this.show(this.tabs.keys().next().value);
		this.checkDepends();

		return E('div', { 'class': 'cbi-section', 'change': () => this.checkDepends() }, [ E('ul', { 'class': 'cbi-tabmenu' }, menu), ...[ ...this.tabs.values() ].map(tab => tab.node) ]);
	}
});

const Form = baseclass.extend({
	__init__(config, title, help) {
		Object.assign(this, { config, title, help, sections: [] });
	},

	section(kind, name) {
		const section = new kind(this, name);

		this.sections.push(section);

		return section;
	},

	async render() {
		await uci.load(this.config);

		const disabled = L.hasViewPermission() ? null : '';
		const node = E('div', { 'class': 'cbi-map' }, [
			E('h2', {}, [ this.title ]), E('div', {}, this.help), ...this.sections.map(section => section.render(disabled))
		]);

		node.map = this;

		return node;
	},

	async save() {
		for (const section of this.sections) {
			const values = section.options().map(option => [ option.option, option.isActive() ? option.parse() : null ]);

			await uci.save(this.config, section.name, Object.fromEntries(values));
		}
	}
});

return baseclass.extend({ Map: Form, NamedSection, Flag, Value: Option, ListValue, DynamicList });
