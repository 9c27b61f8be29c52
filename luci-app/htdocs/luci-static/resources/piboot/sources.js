'use strict';
'require baseclass';
'require dom';
'require ui';
'require piboot.api as api';
'require piboot.names as names';
'require piboot.page as page';
'require piboot.text as text';

/* Where an image can come from: a choice, and the fields that belong to it. */

const POLL = 1000;

function optional(check) {
	return value => value ? check(value) : null;
}

function chosen(words) {
	return value => value ? null : words;
}

/* A list whose entries come later. Entries: { value, label, group }; their words become text. */
function fill(list, entries, first) {
	const before = list.value;
	const groups = new Map();
	const nodes = first === null ? [] : [ E('option', { 'value': '' }, [ first ]) ];

	for (const entry of entries) {
		const option = E('option', { 'value': entry.value }, [ entry.label ]);

		if (!entry.group) {
			nodes.push(option);
			continue;
		}

		if (!groups.has(entry.group)) {
			groups.set(entry.group, E('optgroup', { 'label': entry.group }));
			nodes.push(groups.get(entry.group));
		}

		groups.get(entry.group).appendChild(option);
	}

	dom.content(list, nodes);
	list.value = entries.some(entry => entry.value == before) ? before : '';
}

function button(label, act) {
	return E('button', { 'class': 'btn cbi-button cbi-button-neutral', 'type': 'button', 'click': ui.createHandlerFn(null, act) }, [ label ]);
}

/* As wide as what is in it: names of systems are long. */
function select(id, options) {
	return E('select', { 'id': id, 'class': 'cbi-input-select', 'style': 'width:auto;max-width:100%' }, options ?? []);
}

function input(id, more) {
	return E('input', Object.assign({ 'type': 'text', 'id': id, 'class': 'cbi-input-text', 'spellcheck': 'false' }, more));
}

/* From this computer, through the browser. */
function upload() {
	const file = page.field(_('File'), E('input', { 'type': 'file', 'id': 'piboot-upload', 'class': 'cbi-input-file' }),
		_('An image of an SD card, packed or not. It is sent straight to the SSD; keep this page open meanwhile.'),
		chosen(_('Choose a file.')));

	return {
		title: _('Upload from this computer'), fields: [ file ],
		proposal: () => file.input.files[0]?.name ?? '',
		request: () => ({ file: file.input.files[0] })
	};
}

/* From the list that Raspberry Pi Imager has. */
function online(changed) {
	const board = page.field(_('Board'), select('piboot-board'), _('Shows only what fits this board.'));
	const system = page.field(_('System'), select('piboot-system'), null, chosen(_('Choose a system.')));
	const detail = E('div', { 'id': 'piboot-system-detail', 'class': 'cbi-value-description', 'style': 'overflow-wrap:anywhere' });
	let systems = [], asked = 0;

	const describe = () => {
		const one = systems.find(one => one.url == system.input.value);

		dom.content(detail, one ? [
			E('div', {}, [ one.description ]),
			E('div', {}, [ [ one.released, one.download_bytes ? text.bytes(one.download_bytes) : null, one.url ].filter(part => part).join(', ') ])
		] : null);
		changed();
	};

	const show = answer => {
		systems = answer.systems;

		if (board.input.options.length < 2)
			fill(board.input, answer.boards.map(name => ({ value: name, label: name })), _('all boards'));

		fill(system.input, systems.map(one => ({ value: one.url, label: one.name, group: one.groups.join(' ▸ ') })), _('– choose –'));
		describe();
	};

	/* The agent fetches the list; who asks later gets it at once. Only the last question counts. */
	const ask = mine => api.osList({ board: board.input.value || null }).then(answer => {
		if (mine != asked)
			return;

		if (answer.state == 'loading')
			return new Promise(resolve => window.setTimeout(resolve, POLL)).then(() => ask(mine));

		if (answer.state == 'failed')
			throw Object.assign(new Error(_('The list of systems cannot be had from %s: %s').format(answer.url, answer.why)), { code: 'failed' });

		show(answer);
	});

	const load = () => {
		dom.content(detail, E('em', { 'class': 'spinning' }, [ _('Fetching the list of systems…') ]));

		return ask(++asked).catch(error => page.complain(detail, error).then(() =>
			detail.appendChild(button(_('Try again'), load))));
	};

	board.input.addEventListener('change', load);
	system.input.addEventListener('change', describe);
	fill(board.input, [], _('all boards'));
	fill(system.input, [], _('– choose –'));
	system.input.parentNode.appendChild(detail);

	return {
		title: _('From the internet'), fields: [ board, system ],
		begin: () => systems.length ? null : load(),
		proposal: () => system.input.value,
		request: () => {
			const one = systems.find(one => one.url == system.input.value);

			return { source: one?.url, sha256: one?.sha256 ?? null, size: one?.download_bytes ?? null };
		}
	};
}

/* From an address on the web. */
function address() {
	const url = page.field(_('Address'), input('piboot-url', { 'type': 'url', 'placeholder': 'https://…/image.img.xz' }),
		_('The router downloads it by itself.'), names.url);
	const sum = page.field(_('SHA-256'), input('piboot-sha256', { 'maxlength': 64 }),
		_('Optional: the download is used only if it has this digest.'), optional(names.sha256));

	return {
		title: _('From an address'), fields: [ url, sum ],
		proposal: () => url.input.value.replace(/[?#].*$/, ''),
		request: () => ({ source: url.input.value, sha256: sum.input.value || null })
	};
}

/* From a file that is on the router. */
function file() {
	const source = page.field(_('File'), input('piboot-source', { 'placeholder': '/mnt/ssd/raspios.img.xz' }),
		_('An image of an SD card on the router, packed or not. Copy it to the SSD first, for example with scp.'), names.path);

	return {
		title: _('From a file on the router'), fields: [ source ],
		proposal: () => source.input.value,
		request: () => ({ source: source.input.value })
	};
}

/* From a card or stick in the router. */
function disk(changed) {
	const list = page.field(_('Disk'), select('piboot-disk'),
		_('An SD card or USB stick with a system on it, as a Pi would boot it. It is only read.'), chosen(_('Choose a disk.')));
	const trouble = E('div');

	const use = one => one.is_data ? _('the images are on it') :
		one.mounted.length ? _('mounted at %s').format(text.list(one.mounted, 3)) : null;

	const load = () => api.disks().then(({ disks }) => {
		dom.content(trouble, null);
		fill(list.input, disks.filter(one => !one.is_data).map(one => ({
			value: one.path,
			label: [ one.path, one.model, text.bytes(one.bytes), use(one) ].filter(part => part).join(', ')
		})), disks.some(one => !one.is_data) ? _('– choose –') : _('There is no other disk in the router.'));
		changed();
	}).catch(error => page.complain(trouble, error));

	list.input.parentNode.insertBefore(button(_('Look again'), load), list.input.nextSibling);
	list.input.parentNode.appendChild(trouble);

	return {
		title: _('From a disk in the router'), fields: [ list ],
		begin: load,
		proposal: () => list.input.value ? 'card' : '',
		request: () => ({ source: list.input.value })
	};
}

/* The choice with its fields: `node`, `verify()`, `proposal()`, `request()`, `clear()`. `changed()` when another is chosen. */
function create(changed) {
	const kinds = { upload: upload(), online: online(changed), address: address(), file: file(), disk: disk(changed) };
	const choice = page.field(_('Where from'), select('piboot-from',
		Object.entries(kinds).map(([ key, kind ]) => E('option', { 'value': key }, [ kind.title ]))));
	const current = () => kinds[choice.input.value];

	const show = () => {
		for (const kind of Object.values(kinds))
			for (const field of kind.fields)
				field.row.style.display = kind === current() ? '' : 'none';

		changed();

		return current().begin?.();
	};

	for (const field of Object.values(kinds).flatMap(kind => kind.fields))
		for (const event of [ 'input', 'change' ])
			field.input.addEventListener(event, changed);

	choice.input.addEventListener('change', show);
	const node = E('div', {}, [ choice.row, ...Object.values(kinds).flatMap(kind => kind.fields).map(field => field.row) ]);

	show();

	return {
		node,
		verify: () => current().fields.filter(field => !field.verify()).length == 0,
		proposal: () => current().proposal(),
		request: () => current().request(),
		clear: () => { for (const field of current().fields) field.input.value = '' }
	};
}

return baseclass.extend({ create });
