'use strict';
'require baseclass';
'require dom';
'require ui';
'require piboot.api as api';
'require piboot.names as names';
'require piboot.page as page';
'require piboot.text as text';

/* The dialogs of the overview: enrol a Pi, unenrol one. `changed()` is called after anything has changed. */

function imageOption(image) {
	const what = [ image.os, image.architecture ].filter(part => part).join(', ');

	return E('option', { 'value': image.name }, [ what ? '%s (%s)'.format(image.name, what) : image.name ]);
}

/* What the dialog shows once the agent has taken the order; the page's poll feeds it through `progress`. */
function watch(id, answer, changed, asks_again) {
	const trouble = E('div');
	const bar = page.jobBar(page.mayWrite() ? (job) =>
		api.jobCancel({ job: job.id }).then(changed).catch(error => page.complain(trouble, error)) : null);
	const words = E('p', {}, [ answer.why ?? (answer.job ? _('Its root file system is being made. You can close this; the work goes on.') : _('Its files were there already: it can boot now.')) ]);

	/* What of the image does not fit the board. */
	const warnings = (answer.warnings ?? []).map(warning => E('p', { 'class': 'alert-message warning' }, [ warning ]));

	page.dialog(_('%s is enrolled').format(id), [ words, ...warnings, answer.job ? bar.node : '', trouble ], [ page.closeButton() ]);

	return (jobs) => {
		const job = jobs.find(job => job.id === answer.job);

		if (!job || !bar.node.isConnected)
			return bar.node.isConnected;

		bar.update(job);

		if (job.state == 'done')
			words.textContent = asks_again ? _('It can boot now, and does when it asks again. If it does not, switch the Pi off and on again.') :
				_('It can boot now: switch the Pi off and on again.');
		else if (text.jobIsOver(job))
			words.textContent = _('Its root file system was not made, so it cannot boot. When the cause is gone, unenrol the Pi and enrol it again.');

		return !text.jobIsOver(job);
	};
}

/* `taken` are the ids and host names that others have. `follow(fn)` has fn called with the jobs of every poll. */
function enrol(pi, taken, page_) {
	const trouble = E('div');
	const wait = E('p', { 'class': 'spinning' }, [ _('Asking for the images…') ]);

	page.dialog(_('Enrol a Pi'), [ wait ], [ page.closeButton(_('Cancel')) ]);

	return Promise.all([ api.images(), api.status() ]).then(([ { images } ]) => {
		if (!wait.isConnected)
			return;

		const name = page.field(_('Host name'),
			E('input', { 'type': 'text', 'id': 'piboot-hostname', 'class': 'cbi-input-text', 'value': names.proposal(pi, taken), 'maxlength': 63 }),
			_('Of the booted system, and of the Pi in these pages.'),
			value => names.hostname(value) ?? (taken.some(other => names.deviceId(other) == names.deviceId(value)) ?
				_('Another Pi has this name.') : null));
		const image = page.field(_('Image'),
			E('select', { 'id': 'piboot-image', 'class': 'cbi-input-select' }, images.map(imageOption)),
			_('The Pi gets a copy of its own.'));
		const ip = page.field(_('Address'),
			E('input', { 'type': 'text', 'id': 'piboot-ip', 'class': 'cbi-input-text', 'placeholder': _('any') }),
			_('If it is always to have the same; leave empty otherwise.'),
			value => value.trim() == '' ? null : names.address(value.trim()));
		const keys = page.field(_('SSH keys'),
			E('textarea', { 'id': 'piboot-keys', 'class': 'cbi-input-textarea', 'rows': 3, 'style': 'width:100%', 'placeholder': 'ssh-ed25519 AAAA… me@home', 'spellcheck': 'false' }),
			_('Public keys that may log in as the first user of the image, one a line.'),
			names.keyList);
		const fields = [ name, image, ip, keys ];

		const submit = () => {
			if (fields.filter(field => !field.verify()).length)
				return;

			return api.enroll({
				mac: pi.mac,
				serial: pi.serial ?? undefined,
				hostname: name.input.value,
				image: image.input.value,
				ip: ip.input.value.trim() || undefined,
				ssh_keys: names.keys(keys.input.value)
			}).then(answer => {
				page_.follow(watch(name.input.value, answer, page_.changed, pi.asks_again));
				return page_.changed();
			}).catch(error => page.complain(trouble, error));
		};

		const intro = page.paragraph('%s, %s%s'.format(pi.board, pi.mac, pi.serial ? ', ' + pi.serial : ''));

		if (!images.length)
			return page.dialog(_('Enrol a Pi'), [
				intro,
				E('p', { 'class': 'alert-message warning' }, [
					_('There is no image yet that it could boot.'), ' ',
					E('a', { 'href': L.url('admin/services/piboot/images') }, [ _('Import one first') ]), '.'
				])
			], [ page.closeButton() ]);

		page.dialog(_('Enrol a Pi'), [ intro, E('div', { 'class': 'cbi-section' }, fields.map(field => field.row)), trouble ], [
			page.closeButton(_('Cancel')),
			E('button', {
				'class': 'btn cbi-button cbi-button-positive important',
				'click': ui.createHandlerFn(this, submit)
			}, [ _('Enrol') ])
		]);

		name.input.focus();
		name.input.select();
	}).catch(error => {
		if (wait.isConnected)
			return page.complain(wait.parentNode.insertBefore(E('div'), wait), error).then(() => wait.remove());
	});
}

/* Files are deleted only when the name was typed. */
function unenrol(device, page_) {
	const trouble = E('div');
	const typed = E('input', { 'type': 'text', 'id': 'piboot-typed', 'class': 'cbi-input-text', 'autocomplete': 'off' });
	const confirm = E('div', { 'style': 'display:none' }, [
		page.paragraph(_('Everything that was ever written on this Pi is lost. To confirm, type its name:'), ' ', E('strong', {}, [ device.hostname ])),
		typed
	]);
	const keep = E('input', { 'type': 'radio', 'name': 'piboot-files', 'id': 'piboot-keep', 'checked': '' });
	const remove = E('input', { 'type': 'radio', 'name': 'piboot-files', 'id': 'piboot-delete' });

	const submit = () => api.unenroll({ id: device.id, 'delete': remove.checked }).then(answer => {
		const bar = page.jobBar();

		page.dialog(_('%s is unenrolled').format(device.hostname), [
			page.paragraph(answer.kept ? _('Its files are kept in %s.').format(answer.kept) :
				answer.job ? _('Its files are being deleted. You can close this; the work goes on.') : _('It had no files.')),
			answer.job ? bar.node : ''
		], [ page.closeButton() ]);

		page_.follow(jobs => {
			const job = jobs.find(job => job.id === answer.job);

			if (job)
				bar.update(job);

			return bar.node.isConnected && !(job && text.jobIsOver(job));
		});

		return page_.changed();
	}).catch(error => page.complain(trouble, error));

	const button = E('button', {
		'class': 'btn cbi-button cbi-button-negative important',
		'click': ui.createHandlerFn(this, submit)
	}, [ _('Unenrol') ]);

	const verify = () => {
		confirm.style.display = remove.checked ? '' : 'none';
		button.disabled = remove.checked && typed.value != device.hostname;
	};

	[ keep, remove ].forEach(input => input.addEventListener('change', verify));
	typed.addEventListener('input', verify);

	page.dialog(_('Unenrol %s').format(device.hostname), [
		page.paragraph(_('The Pi will not be offered to boot any more. If it runs now, it loses its root file system at once: shut it down first.')),
		E('div', {}, [ E('label', {}, [ keep, ' ', _('Keep its files on the SSD') ]) ]),
		E('div', {}, [ E('label', {}, [ remove, ' ', _('Delete its files') ]) ]),
		confirm,
		trouble
	], [ page.closeButton(_('Cancel')), button ]);
}

return baseclass.extend({ enrol, unenrol, watch });
