'use strict';
'require baseclass';
'require dom';
'require ui';
'require piboot.api as api';
'require piboot.choice as choice';
'require piboot.names as names';
'require piboot.page as page';
'require piboot.text as text';

/* The dialogs of the overview: enrol a Pi, unenrol one. `changed()` is called after anything has changed. */

/* What the dialog shows once the agent has taken the order; the page's poll feeds it through `progress`. */
function watch(name, answer, changed, asks_again) {
	const trouble = E('div');
	const bar = page.jobBar(page.mayWrite() ? (job) =>
		api.jobCancel({ job: job.id }).then(changed).catch(error => page.complain(trouble, error)) : null);
	const words = E('p', {}, [ answer.why ?? (answer.job ? _('Its root file system is being made. You can close this; the work goes on.') : _('Its files were there already: it can boot now.')) ]);

	/* What of the image does not fit the board. */
	const warnings = (answer.warnings ?? []).map(warning => E('p', { 'class': 'alert-message warning' }, [ warning ]));

	page.dialog(_('%s is enrolled').format(name), [ words, ...warnings, answer.job ? bar.node : '', trouble ], [
		page.closeButton(),
		page.linkButton(_('Watch it boot'), L.url('admin/services/piboot/boots') + '#device=' + encodeURIComponent(answer.id))
	]);

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

		const name = choice.hostname(names.proposal(pi, taken), taken);
		const image = choice.image(images, pi.model);
		const root = choice.root();
		const ip = choice.address('');
		const user = choice.user('');
		const password = choice.password();
		const keys = choice.keys('');
		const quota = choice.quota('');
		const fields = [ name, image, root, ip, user, password, keys, quota ];

		const submit = () => {
			if (fields.filter(field => !field.verify()).length)
				return;

			return api.enroll({
				mac: pi.mac,
				serial: pi.serial ?? undefined,
				hostname: name.input.value,
				image: image.input.value,
				root: root.input.value,
				ip: ip.input.value.trim() || undefined,
				user: user.input.value.trim() || undefined,
				password: password.input.value || undefined,
				quota: quota.input.value.trim() || undefined,
				ssh_keys: names.keys(keys.input.value)
			}).then(answer => {
				password.input.value = '';
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
