'use strict';
'require baseclass';
'require dom';
'require ui';
'require piboot.api as api';
'require piboot.choice as choice';
'require piboot.names as names';
'require piboot.page as page';
'require piboot.text as text';

/* The dialogs about a Pi that is enrolled: what is known of it, what can be changed at it, and a new root for it. */

/* States in which a Pi loses something that it uses. */
function isUp(device) {
	return [ 'booting', 'stuck', 'running' ].includes(device.state);
}

/* Opens a dialog that needs to be told something first; `show(answers)` fills it. */
function open(title, asked, show) {
	const wait = E('p', { 'class': 'spinning' }, [ _('Asking the agent…') ]);

	page.dialog(title, [ wait ], [ page.closeButton(_('Cancel')) ]);

	return Promise.all(asked).then(answers => wait.isConnected ? show(...answers) : null).catch(error => {
		if (wait.isConnected)
			return page.complain(wait.parentNode.insertBefore(E('div'), wait), error).then(() => wait.remove());
	});
}

/* Shows a job until it ends, with words before and after; `more` are nodes below, `then(job)` is called at the end. */
function watch(title, words, job_id, page_, then) {
	const trouble = E('div');
	const bar = page.jobBar(job => api.jobCancel({ job: job.id }).then(page_.changed).catch(error => page.complain(trouble, error)));
	const line = E('p', {}, [ words ]);

	page.dialog(title, [ line, bar.node, trouble ], [ page.closeButton() ]);

	page_.follow(jobs => {
		const job = jobs.find(job => job.id === job_id);

		if (!job || !bar.node.isConnected)
			return bar.node.isConnected;

		bar.update(job);

		if (text.jobIsOver(job))
			line.textContent = then(job);

		return !text.jobIsOver(job);
	});
}

function row(label, ...words) {
	return E('tr', { 'class': 'tr' }, [
		E('td', { 'class': 'td left', 'width': '33%' }, [ label ]),
		E('td', { 'class': 'td left' }, words)
	]);
}

/* What was changed in a copy, or left alone: where, and what. */
function changeTable(changes) {
	return E('table', { 'class': 'table' }, changes.map(change => E('tr', { 'class': 'tr' }, [
		E('td', { 'class': 'td left', 'width': '40%', 'style': 'overflow-wrap:anywhere' }, [ change.path ]),
		E('td', { 'class': 'td left' }, [ change.what, page.below(change.rule) ])
	])));
}

function details(device) {
	return open(_('%s in detail').format(device.hostname), [ api.device({ id: device.id }) ], detail => {
		const keys = detail.ssh_keys ?? [];
		const notes = detail.notes ?? [];
		const changes = detail.changes ?? [];
		const lines = [
			row(_('Name in the configuration'), detail.id),
			row(_('Board'), [ detail.board ?? _('not seen yet'), detail.serial, detail.mac ].filter(part => part).join(', ')),
			row(_('State'), [ text.state(detail.state), detail.why ].filter(part => part).join(': ')),
			row(_('Image'), detail.image),
			row(_('Address'), detail.fixed_ip ? _('%s, always').format(detail.fixed_ip) : detail.ip ?? '–'),
			row(_('On the disk'), text.taken(detail)),
			row(_('User'), detail.user ?? _('as in the image')),
			row(_('Password'), detail.has_password ? _('set; only its hash is kept') : _('as in the image')),
			row(_('SSH keys'), keys.length ? E('div', { 'style': 'overflow-wrap:anywhere' }, keys.map(key => E('div', {}, [ key ]))) : '–')
		];

		if (detail.made_by || detail.clone_of)
			lines.push(row(_('Root'), [ detail.made_by == 'ephemeral' ? _('ephemeral: what it changes is gone at its next boot') : detail.made_by, detail.clone_of ? _('began as %s').format(detail.clone_of) : null ].filter(part => part).join(', ')));

		page.dialog(_('%s in detail').format(detail.hostname), [
			E('div', { 'id': 'piboot-details', 'style': 'max-height:70vh;overflow:auto' }, [
				E('table', { 'class': 'table' }, lines),
				notes.length ? E('h4', {}, [ _('To be known') ]) : '',
				notes.length ? changeTable(notes) : '',
				E('h4', {}, [ _('Changed in its copy of the image') ]),
				changes.length ? changeTable(changes) : page.paragraph(_('Nothing was changed yet.'))
			])
		], [ page.closeButton() ]);
	});
}

/* What of a form differs from what is configured; nothing else is sent. */
function difference(detail, form) {
	const edit = {};
	const set = (name, value, old) => {
		if (value !== old)
			edit[name] = value;
	};

	set('hostname', form.hostname, detail.hostname);
	set('ip', form.ip, detail.fixed_ip ?? '');
	set('user', form.user, detail.user ?? '');
	set('disabled', form.disabled, detail.state == 'disabled');

	if ((form.quota == '' ? 0 : names.bytesOf(form.quota)) !== (detail.quota ?? 0))
		edit.quota = form.quota;

	if (form.password != '')
		edit.password = form.password;

	if (form.keys.join('\n') !== (detail.ssh_keys ?? []).join('\n'))
		edit.ssh_keys = form.keys;

	return edit;
}

/* `others` are the ids and host names that others have. */
function edit(device, others, page_) {
	return open(_('Edit %s').format(device.hostname), [ api.device({ id: device.id }) ], detail => {
		const trouble = E('div');
		const name = choice.hostname(detail.hostname, others);
		const ip = choice.address(detail.fixed_ip ?? '');
		const keys = choice.keys((detail.ssh_keys ?? []).join('\n'));
		const user = choice.user(detail.user ?? '');
		const password = choice.password(detail.has_password ? _('One is set. Type another one to change it.') : null);
		const disabled = page.check(_('Disabled'), 'piboot-disabled', detail.state == 'disabled',
			_('Nothing is served to it, and its files stay.'));
		const force = page.check('', 'piboot-force', false,
			_('Disable it though it is up: it loses its root file system at once.'));
		const quota = choice.quota(detail.quota ? names.sizeText(detail.quota) : '');
		const fields = [ name, ip, user, password, keys, quota ];

		const show = () => { force.row.style.display = isUp(detail) && disabled.input.checked ? '' : 'none' };

		disabled.input.addEventListener('change', show);
		show();

		const submit = () => {
			if (fields.filter(field => !field.verify()).length)
				return;

			const wanted = difference(detail, {
				hostname: name.input.value,
				ip: ip.input.value.trim(),
				user: user.input.value.trim(),
				password: password.input.value,
				keys: names.keys(keys.input.value),
				quota: quota.input.value.trim(),
				disabled: disabled.input.checked
			});

			if (!Object.keys(wanted).length)
				return ui.hideModal();

			return api.deviceEdit({ id: detail.id, force: force.input.checked || undefined, ...wanted }).then(answer => {
				password.input.value = '';
				done(wanted.hostname ?? detail.hostname, answer, page_);
				return page_.changed();
			}).catch(error => page.complain(trouble, error));
		};

		page.dialog(_('Edit %s').format(detail.hostname), [
			E('div', { 'class': 'cbi-section' }, [ ...fields.map(field => field.row), disabled.row, force.row ]), trouble
		], [
			page.closeButton(_('Cancel')),
			E('button', { 'class': 'btn cbi-button cbi-button-positive important', 'click': ui.createHandlerFn(this, submit) }, [ _('Save') ])
		]);

		name.input.focus();
	});
}

function done(hostname, answer, page_) {
	const notes = (answer.notes ?? []).join(' ');
	const changed = [ _('The configuration is changed.'), notes ].filter(part => part).join(' ');

	if (answer.job)
		return watch(_('%s is changed').format(hostname), changed, answer.job, page_, job =>
			job.state == 'done' ? changed : _('Its files were not changed: what is configured is not yet what the Pi finds.'));

	if (notes)
		return page.dialog(_('%s is changed').format(hostname), [ page.paragraph(changed) ], [ page.closeButton() ]);

	ui.hideModal();
}

/* A new root, from another image or the same. Files are deleted only when the name was typed. */
function replaceRoot(device, page_) {
	return open(_('New root for %s').format(device.hostname), [ api.images(), api.device({ id: device.id }) ], ({ images }, detail) => {
		const trouble = E('div');
		const image = choice.image(images, device.model, device.image);
		const root = choice.root(detail.root);
		const typed = E('input', { 'type': 'text', 'id': 'piboot-typed', 'class': 'cbi-input-text', 'autocomplete': 'off' });
		const keep = E('input', { 'type': 'radio', 'name': 'piboot-files', 'id': 'piboot-keep', 'checked': '' });
		const remove = E('input', { 'type': 'radio', 'name': 'piboot-files', 'id': 'piboot-delete' });
		const force = page.check('', 'piboot-force', false, _('Do it though it is up: it loses its root file system at once.'));
		const confirm = E('div', { 'style': 'display:none' }, [
			page.paragraph(_('Everything that was ever written on this Pi is lost. To confirm, type its name:'), ' ', E('strong', {}, [ device.hostname ])),
			typed
		]);

		const submit = () => {
			const wanted = { id: device.id, keep: keep.checked, force: force.input.checked || undefined, root: root.input.value };
			const asked = image.input.value == device.image ? api.deviceReset(wanted) : api.deviceSwitch({ image: image.input.value, ...wanted });

			return asked.then(answer => {
				watch(_('New root for %s').format(device.hostname),
					_('Its new root file system is being made; until it is, nothing is served to the Pi. You can close this; the work goes on.'),
					answer.job, page_, job => job.state == 'done' ? _('It can boot now: switch the Pi off and on again.') : _('Its old root file system is still there, as it was.'));
				return page_.changed();
			}).catch(error => page.complain(trouble, error));
		};

		const button = E('button', { 'class': 'btn cbi-button cbi-button-negative important', 'click': ui.createHandlerFn(this, submit) }, [ _('Make it anew') ]);

		const verify = () => {
			confirm.style.display = remove.checked ? '' : 'none';
			button.disabled = remove.checked && typed.value != device.hostname;
		};

		[ keep, remove ].forEach(input => input.addEventListener('change', verify));
		typed.addEventListener('input', verify);

		page.dialog(_('New root for %s').format(device.hostname), [
			page.paragraph(_('The Pi gets a fresh copy of an image; what is configured for it stays.')),
			E('div', { 'class': 'cbi-section' }, [ image.row, root.row, isUp(device) ? force.row : '' ]),
			E('div', {}, [ E('label', {}, [ keep, ' ', _('Keep the root it has, as a snapshot') ]) ]),
			E('div', {}, [ E('label', {}, [ remove, ' ', _('Delete the root it has') ]) ]),
			confirm,
			trouble
		], [ page.closeButton(_('Cancel')), button ]);
	});
}

return baseclass.extend({ details, edit, replaceRoot, difference, isUp });
