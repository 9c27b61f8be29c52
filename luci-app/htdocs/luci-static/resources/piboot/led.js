'use strict';
'require baseclass';
'require ui';
'require piboot.api as api';
'require piboot.page as page';
'require piboot.table as table';

/* What the green LED of a Pi means that flashes instead of booting: by how many long and how many short flashes. */

/* As one sees it: ▬▬ ●●● */
function drawn(code) {
	return [ '▬'.repeat(code.long), '●'.repeat(code.short) ].filter(part => part).join(' ');
}

function counted(code) {
	return code.long ? _('%d long, %d short').format(code.long, code.short) : _('%d short').format(code.short);
}

/* The codes that have these flashes; an empty string is any number. */
function choose(codes, long, short) {
	return codes.filter(code => (long === '' || code.long == long) && (short === '' || code.short == short));
}

function numbers(codes, of) {
	return [ ...new Set(codes.map(of)) ].sort((a, b) => a - b);
}

function select(id, any, values) {
	return E('select', { 'id': id, 'class': 'cbi-input-select', 'style': 'width:auto;min-width:5em' }, [
		E('option', { 'value': '' }, [ any ]),
		...values.map(value => E('option', { 'value': value }, [ value == 0 ? _('none') : String(value) ]))
	]);
}

function picker(codes) {
	const long = select('piboot-long', _('any'), numbers(codes, code => code.long));
	const short = select('piboot-short', _('any'), numbers(codes, code => code.short));
	const list = table.create([
		{
			title: _('Flashes'), width: '25%', sign: code => drawn(code),
			node: code => [ E('div', { 'style': 'letter-spacing:.2em;white-space:nowrap' }, [ drawn(code) ]), E('small', {}, [ counted(code) ]) ]
		},
		{ title: _('Meaning'), text: code => code.meaning },
		{ title: _('What to do'), text: code => code.todo }
	], code => '%d-%d'.format(code.long, code.short), _('Nothing is known of these flashes: count again. The long ones come first.'));
	const show = () => list.update(choose(codes, long.value, short.value));

	[ long, short ].forEach(input => input.addEventListener('change', show));
	show();

	return [
		page.paragraph(_('A Pi that cannot boot flashes its green LED, pauses, and flashes again. Count the long flashes, then the short ones:')),
		E('p', {}, [
			E('label', { 'for': 'piboot-long' }, [ _('Long flashes') ]), ' ', long, ' ',
			E('label', { 'for': 'piboot-short', 'style': 'margin-left:1em' }, [ _('Short flashes') ]), ' ', short
		]),
		E('div', { 'id': 'piboot-led', 'style': 'max-height:55vh;overflow:auto' }, [ list.render() ])
	];
}

function open() {
	const title = _('What does the green LED do?');
	const wait = E('p', { 'class': 'spinning' }, [ _('Asking for the codes…') ]);
	const trouble = E('div');

	page.dialog(title, [ wait, trouble ], [ page.closeButton() ]);

	return api.led().then(({ codes }) => {
		if (wait.isConnected)
			page.dialog(title, picker(codes ?? []), [ page.closeButton() ]);
	}).catch(error => {
		wait.remove();
		return page.complain(trouble, error);
	});
}

/* The button that leads here; with fewer words where there is little room. */
function button(words) {
	const title = _('What does the green LED do?');

	return E('button', {
		'class': 'btn cbi-button cbi-button-neutral', 'title': title,
		'click': ui.createHandlerFn(this, open)
	}, [ words ?? title ]);
}

return baseclass.extend({ drawn, counted, choose, open, button });
