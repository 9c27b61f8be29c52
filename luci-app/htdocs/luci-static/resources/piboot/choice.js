'use strict';
'require baseclass';
'require piboot.names as names';
'require piboot.page as page';
'require piboot.text as text';

/* What a dialog asks about a Pi, as fields that say at once what cannot be. */

function input(type, id, value, more) {
	return E('input', { 'type': type, 'id': id, 'class': 'cbi-input-text', 'value': value, ...more });
}

/* `others` are the ids and host names that are taken. */
function hostname(value, others) {
	return page.field(_('Host name'), input('text', 'piboot-hostname', value, { 'maxlength': 63 }),
		_('Of the booted system, and of the Pi in these pages.'),
		value => names.hostname(value) ?? (others.some(other => names.deviceId(other) == names.deviceId(value)) ?
			_('Another Pi has this name.') : null));
}

function address(value) {
	return page.field(_('Address'), input('text', 'piboot-ip', value, { 'placeholder': _('any') }),
		_('If it is always to have the same; leave empty otherwise.'),
		value => value.trim() == '' ? null : names.address(value.trim()));
}

function keys(value) {
	return page.field(_('SSH keys'),
		E('textarea', { 'id': 'piboot-keys', 'class': 'cbi-input-textarea', 'rows': 3, 'style': 'width:100%', 'placeholder': 'ssh-ed25519 AAAA… me@home', 'spellcheck': 'false' }, [ value ]),
		_('Public keys that may log in as the first user of the image, one a line.'),
		names.keyList);
}

function user(value) {
	return page.field(_('User'), input('text', 'piboot-user', value, { 'maxlength': 32, 'placeholder': _('as in the image'), 'autocomplete': 'off', 'spellcheck': 'false' }),
		_('The first user of the image gets this name; where there is none, one is made.'),
		value => value.trim() == '' ? null : names.user(value.trim()));
}

function password(help) {
	return page.field(_('Password'), input('password', 'piboot-password', '', { 'maxlength': 256, 'placeholder': _('as in the image'), 'autocomplete': 'new-password' }),
		help ?? _('Of that user. Only its hash is kept. Leave empty to log in by SSH key alone.'));
}

function quota(value) {
	return page.field(_('Quota'), input('text', 'piboot-quota', value, { 'placeholder': _('none'), 'maxlength': 32, 'autocomplete': 'off' }),
		_('How much its files may take on the disk: 8G, 500M. Leave empty if they may take all there is.'),
		value => value.trim() == '' ? null : names.size(value.trim()));
}

function imageOption(image, model, chosen) {
	const what = [ image.os, image.architecture ].filter(part => part).join(', ');
	const label = what ? '%s (%s)'.format(image.name, what) : image.name;
	const fit = text.fit(image, model);

	return E('option', { 'value': image.name, 'selected': image.name === chosen ? '' : null },
		[ fit?.ok === false ? _('%s: does not fit').format(label) : label ]);
}

/* Those that fit first. */
function image(images, model, chosen) {
	const order = images.slice().sort((a, b) => (text.fit(b, model)?.ok !== false) - (text.fit(a, model)?.ok !== false));
	const select = E('select', { 'id': 'piboot-image', 'class': 'cbi-input-select' }, order.map(image => imageOption(image, model, chosen)));
	const field = page.field(_('Image'), select, _('The Pi gets a copy of its own.'));
	const hint = E('div', { 'class': 'cbi-value-description' });

	const show = () => {
		const fit = text.fit(images.find(image => image.name == select.value) ?? {}, model);

		hint.textContent = fit?.ok === false ? [ _('This image does not fit the board.'), fit.why ].filter(part => part).join(' ') : '';
	};

	select.addEventListener('change', show);
	select.parentNode.appendChild(hint);
	show();

	return field;
}

/* `chosen` is the word of the configuration. Whether files are copied or share their blocks is the disk's affair. */
function root(chosen) {
	const kept = chosen && chosen != 'ephemeral' ? chosen : 'auto';
	const option = (value, label) => E('option', { 'value': value, 'selected': value == (chosen ?? 'auto') ? '' : null }, [ label ]);

	return page.field(_('What it changes'), E('select', { 'id': 'piboot-root', 'class': 'cbi-input-select' }, [
		option(kept, _('stays, in a root of its own')),
		option('ephemeral', _('is gone at its next boot'))
	]), _('For classrooms, kiosks, and Pis that are simply switched off: many share the files of one image, which none of them can change. What a Pi writes is in its own memory.'));
}

return baseclass.extend({ hostname, address, keys, user, password, quota, image, root });
