'use strict';
'require baseclass';
'require ui';
'require piboot.api as api';
'require piboot.enrol as enrol';
'require piboot.names as names';
'require piboot.page as page';

/* The dialog that enrols a Pi which begins as another one, or as a snapshot of it. */

function pendingOption(pi) {
	return E('option', { 'value': pi.mac }, [ '%s, %s'.format(pi.board, pi.mac) ]);
}

/* `snapshot` is the name of the one that is asked for first. */
function open(device, page_, snapshot) {
	const trouble = E('div');
	const wait = E('p', { 'class': 'spinning' }, [ _('Asking for the Pis…') ]);

	page.dialog(_('Clone %s').format(device.hostname), [ wait ], [ page.closeButton(_('Cancel')) ]);

	return Promise.all([ api.devices(), api.snapshots({ id: device.id }) ]).then(([ { devices, pending }, { snapshots, in_use } ]) => {
		if (!wait.isConnected)
			return;

		const taken = devices.flatMap(pi => [ pi.id, pi.hostname ]);
		const which = () => pending.find(pi => pi.mac == mac.input.value.trim().toLowerCase());
		const origin = page.field(_('Begins as'),
			E('select', { 'id': 'piboot-origin', 'class': 'cbi-input-select' }, [
				E('option', { 'value': '' }, [ _('what %s is now').format(device.hostname) ])
			].concat(snapshots.map(found =>
				E('option', { 'value': found.name, 'selected': found.name == snapshot ? '' : null }, [ _('snapshot "%s"').format(found.name) ])))),
			_('A Pi that runs can only be cloned by a snapshot.'),
			value => value == '' ? in_use ?? null : null);
		const mac = page.field(_('MAC address'),
			E('input', { 'type': 'text', 'id': 'piboot-mac', 'class': 'cbi-input-text', 'list': 'piboot-waiting', 'value': pending[0]?.mac ?? '' }),
			_('Of the new Pi. Those that wait to be enrolled are offered.'),
			value => names.mac(value.trim()));
		const name = page.field(_('Host name'),
			E('input', { 'type': 'text', 'id': 'piboot-hostname', 'class': 'cbi-input-text', 'value': names.proposal(which() ?? {}, taken), 'maxlength': 63 }),
			_('Of the booted system, and of the Pi in these pages.'),
			value => names.hostname(value) ?? (taken.some(other => names.deviceId(other) == names.deviceId(value)) ?
				_('Another Pi has this name.') : null));
		const fields = [ origin, mac, name ];

		mac.input.addEventListener('input', () => {
			if (which())
				name.input.value = names.proposal(which(), taken);
		});

		const submit = () => {
			if (fields.filter(field => !field.verify()).length)
				return;

			return api.deviceClone({
				from: device.id,
				snapshot: origin.input.value || undefined,
				mac: mac.input.value.trim(),
				serial: which()?.serial ?? undefined,
				hostname: name.input.value
			}).then(answer => {
				page_.follow(enrol.watch(name.input.value, answer, page_.changed, which()?.asks_again));
				return page_.changed();
			}).catch(error => page.complain(trouble, error));
		};

		page.dialog(_('Clone %s').format(device.hostname), [
			page.paragraph(_('The new Pi gets a copy of the files, with a host name, machine id, SSH host keys and mounts of its own.')),
			E('datalist', { 'id': 'piboot-waiting' }, pending.map(pendingOption)),
			E('div', { 'class': 'cbi-section' }, fields.map(field => field.row)),
			trouble
		], [
			page.closeButton(_('Cancel')),
			E('button', {
				'class': 'btn cbi-button cbi-button-positive important',
				'click': ui.createHandlerFn(null, submit)
			}, [ _('Clone') ])
		]);
	}).catch(error => {
		if (wait.isConnected)
			return page.complain(wait.parentNode.insertBefore(E('div'), wait), error).then(() => wait.remove());
	});
}

return baseclass.extend({ open });
