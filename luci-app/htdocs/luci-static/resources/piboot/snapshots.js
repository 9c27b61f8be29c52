'use strict';
'require baseclass';
'require dom';
'require ui';
'require piboot.api as api';
'require piboot.clone as clone';
'require piboot.names as names';
'require piboot.page as page';
'require piboot.text as text';

/* The dialog about a Pi's snapshots: take one, go back to one, begin another Pi as one, remove one. */

const BEFORE = 'before-rollback';

function button(words, style, action) {
	return E('button', { 'class': 'btn cbi-button ' + style, 'click': ui.createHandlerFn(null, action) }, [ words ]);
}

function size(snapshot) {
	if (snapshot.whole)
		return _('all shared');

	return snapshot.copied_bytes || snapshot.shared_bytes ?
		_('%s copied, %s shared').format(text.bytes(snapshot.copied_bytes), text.bytes(snapshot.shared_bytes)) : '–';
}

/* Asks before something that cannot be taken back, or takes the Pi's files away. */
function confirm(title, words, label, act, back) {
	const trouble = E('div');

	page.dialog(title, words.map(line => page.paragraph(line)).concat(trouble), [
		button(_('Cancel'), '', () => back()),
		button(label, 'cbi-button-negative important', () => act().catch(error => page.complain(trouble, error)))
	]);
}

function open(device, page_) {
	const write = page.mayWrite();
	const trouble = E('div'), state = E('div'), list = E('div', { 'id': 'piboot-snapshots' });
	const bar = page.jobBar(write ? (job) => api.jobCancel({ job: job.id }).catch(error => page.complain(trouble, error)) : null);
	const progress = E('div');
	const again = () => open(device, page_);

	/* Shows how far a job is, and looks at the snapshots again when it ends. */
	const watch = (id) => {
		if (!id)
			return load();

		dom.content(progress, bar.node);
		page_.follow(jobs => {
			const job = jobs.find(job => job.id === id);

			if (!list.isConnected)
				return false;

			if (job)
				bar.update(job);

			if (job && text.jobIsOver(job))
				load();

			return !(job && text.jobIsOver(job));
		});

		return Promise.all([ load(), page_.changed() ]);
	};

	const start = (order) => order.then(answer => {
		show();
		return watch(answer.job);
	});

	const rollback = (snapshot) => confirm(_('Roll back %s').format(device.hostname), [
		_('Everything on this Pi becomes what it was in the snapshot "%s".').format(snapshot.name),
		_('What it is now is kept as the snapshot "%s", in the place of an older one of this name.').format(BEFORE)
	], _('Roll back'), () => start(api.rollback({ id: device.id, snapshot: snapshot.name })), again);

	const remove = (snapshot) => confirm(_('Remove a snapshot'), [
		_('The snapshot "%s" of %s is deleted. The Pi stays as it is.').format(snapshot.name, device.hostname)
	], _('Remove'), () => start(api.snapshotRemove({ id: device.id, snapshot: snapshot.name })), again);

	const row = (snapshot, in_use) => E('tr', { 'class': 'tr', 'data-key': snapshot.name }, [
		E('td', { 'class': 'td' }, [ snapshot.name ]),
		E('td', { 'class': 'td', 'title': text.date(snapshot.made_ms) }, [ text.ago(snapshot.made_ms, Date.now()) ]),
		E('td', { 'class': 'td' }, [ snapshot.image ]),
		E('td', { 'class': 'td' }, [ size(snapshot) ]),
		E('td', { 'class': 'td cbi-section-actions' }, write ? [
			E('button', {
				'class': 'btn cbi-button cbi-button-action', 'disabled': in_use ? '' : null,
				'click': ui.createHandlerFn(null, () => rollback(snapshot))
			}, [ _('Roll back') ]), ' ',
			button(_('Clone'), 'cbi-button-neutral', () => clone.open(device, page_, snapshot.name)), ' ',
			button(_('Remove'), 'cbi-button-remove', () => remove(snapshot))
		] : [])
	]);

	const fill = (answer) => {
		dom.content(state, answer.in_use ? E('div', { 'class': 'alert-message warning' }, [ page.paragraph(answer.in_use) ]) : null);
		take.disabled = !!answer.in_use || answer.snapshots.length >= answer.most;
		dom.content(list, answer.snapshots.length ? E('table', { 'class': 'table cbi-section-table' }, [
			E('tr', { 'class': 'tr table-titles' }, [ _('Snapshot'), _('Taken'), _('Image'), _('Size'), '' ].map(title =>
				E('th', { 'class': 'th' }, [ title ])))
		].concat(answer.snapshots.map(snapshot => row(snapshot, answer.in_use)))) :
			E('p', {}, [ E('em', {}, [ _('There is no snapshot of this Pi yet.') ]) ]));
	};

	const load = () => api.snapshots({ id: device.id }).then(fill).catch(error => page.complain(trouble, error));

	const name = page.field(_('Name'),
		E('input', { 'type': 'text', 'id': 'piboot-snapshot', 'class': 'cbi-input-text', 'placeholder': _('date and time'), 'maxlength': 63 }),
		_('The Pi has to be off, and does not start until the snapshot is taken.'),
		value => value == '' ? null : names.snapshotName(value));
	const take = button(_('Take a snapshot'), 'cbi-button-add', () => {
		if (!name.verify())
			return;

		dom.content(trouble, null);

		return api.snapshot({ id: device.id, name: name.input.value || undefined }).then(answer => {
			name.input.value = '';
			return watch(answer.job);
		}).catch(error => page.complain(trouble, error));
	});

	const show = () => page.dialog(_('Snapshots of %s').format(device.hostname), [
		page.paragraph(_('A snapshot keeps what the files of a Pi are like, to go back to.')),
		state, list, progress,
		write ? E('div', { 'class': 'cbi-section' }, [ name.row, E('div', { 'class': 'right' }, [ take ]) ]) : '',
		trouble
	], (write ? [ button(_('Clone this Pi'), 'cbi-button-neutral', () => clone.open(device, page_)) ] : []).concat(page.closeButton()));

	show();

	return load();
}

return baseclass.extend({ open });
