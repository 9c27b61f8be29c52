'use strict';
'require baseclass';

/*
 * The rules of the agent (src/config/names.rs) for what people type, so that a dialog can tell before anything is sent.
 * Each check returns null, or a sentence that says what is wrong. The agent has the last word.
 */

function hostname(name) {
	if (!/^[A-Za-z0-9-]{1,63}$/.test(name) || name.startsWith('-') || name.endsWith('-'))
		return _('A host name has 1 to 63 letters, digits and hyphens, with no hyphen at either end.');

	/* dnsmasq takes these for a command, or for how long a lease lasts. */
	if (/^(ignore|infinite|[0-9]+[smhdw]?)$/i.test(name))
		return _('This name means something else to the DHCP server: choose another one.');

	return null;
}

function deviceId(name) {
	const id = name.toLowerCase().replace(/-/g, '_');

	return /^[a-z]/.test(id) ? id : 'pi_' + id;
}

function imageName(name) {
	if (!/^[a-z0-9][a-z0-9._-]{0,62}$/.test(name))
		return _('An image name has 1 to 63 lower-case letters, digits, dots, underscores and hyphens, and starts with a letter or digit.');

	return null;
}

function user(name) {
	if (!/^[a-z][a-z0-9_-]{0,31}$/.test(name) || name == 'root')
		return _('A user name has 1 to 32 lower-case letters, digits, underscores and hyphens, starts with a letter, and is not root.');

	return null;
}

function snapshotName(name) {
	if (!/^[a-z0-9][a-z0-9._-]{0,62}$/.test(name))
		return _('A snapshot name has 1 to 63 lower-case letters, digits, dots, underscores and hyphens, and starts with a letter or digit.');

	return null;
}

function mac(text) {
	return /^[0-9a-f]{2}([:-][0-9a-f]{2}){5}$/i.test(text) ? null : _('This is no MAC address, such as dc:a6:32:79:26:df.');
}

function address(text) {
	const parts = /^([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})$/.exec(text);
	const bytes = parts ? parts.slice(1).map(Number) : [];

	if (!parts || bytes.some(byte => byte > 255) || parts.slice(1).some(part => part.length > 1 && part[0] == '0'))
		return _('This is no IPv4 address, such as 192.168.1.50.');

	if (text == '0.0.0.0' || bytes[0] == 127 || bytes[0] >= 224 && (bytes[0] < 240 || text == '255.255.255.255'))
		return _('This is no address of one device.');

	return null;
}

function timezone(name) {
	return name.length <= 64 && name.split('/').every(part => /^[A-Za-z][A-Za-z0-9_+-]*$/.test(part)) ? null :
		_('This is no time zone, such as Europe/Berlin.');
}

function locale(name) {
	return /^[A-Za-z][A-Za-z0-9_.@-]{0,39}$/.test(name) ? null : _('This is no locale, such as de_DE.UTF-8.');
}

function keyboard(name) {
	return /^[a-z_,]{1,32}$/.test(name) ? null : _('This is no keyboard layout, such as us or de.');
}

/* Bytes of a size as people write it, as src/config/size.rs reads it; null for what is none. */
function bytesOf(text) {
	const [ , number, unit ] = /^([0-9]+(?:\.[0-9]{1,9})?)\s*([tgmk]?i?)b?$/i.exec(text.trim()) ?? [];
	const power = [ '', 'k', 'm', 'g', 't' ].indexOf((unit ?? '-').toLowerCase().replace('i', ''));

	if (power < 0 || /^i$/i.test(unit))
		return null;

	const bytes = Math.floor(Number(number) * (/i$/i.test(unit) ? 1024 : 1000) ** power);

	return bytes <= Number.MAX_SAFE_INTEGER ? bytes : null;
}

function size(text) {
	return bytesOf(text) === null ? _('This is no size, such as 8G, 7.5G or 500M.') : null;
}

/* The other way: 8G for 8000000000. */
function sizeText(bytes) {
	const units = [ [ 'T', 1e12 ], [ 'G', 1e9 ], [ 'M', 1e6 ], [ 'K', 1e3 ], [ 'Ti', 2 ** 40 ], [ 'Gi', 2 ** 30 ], [ 'Mi', 2 ** 20 ], [ 'Ki', 1024 ], [ '', 1 ] ];
	const [ unit, factor ] = units.find(([ , factor ]) => bytes > 0 && bytes % factor == 0) ?? [ '', 1 ];

	return bytes / factor + unit;
}

function path(text) {
	return text.startsWith('/') && text.length > 1 ? null :
		_('Give the whole path of the file on the router, for example /mnt/ssd/raspios.img.xz.');
}

const KEY = /^(ssh-|ecdsa-sha2-|sk-)[^ ]* AAAA[A-Za-z0-9+\/=]*( |$)/;

/* One key a line; empty lines and comments are nobody's. */
function keys(text) {
	return text.split('\n').map(line => line.trim().replace(/\s+/g, ' ')).filter(line => line != '' && !line.startsWith('#'));
}

function keyList(text) {
	const bad = keys(text).findIndex(line => !KEY.test(line));

	return bad < 0 ? null :
		_('Key %d is no public SSH key: copy the one line of a file such as id_ed25519.pub.').format(bad + 1);
}

/* A name for a Pi that has none: its family and what tells it from its sisters; never one of `taken`. */
function proposal(pi, taken) {
	const family = /Raspberry Pi ([0-9]+)/.exec(pi.board ?? '');
	const own = pi.serial ?? (pi.mac ?? '').replace(/:/g, '').slice(-6);
	const name = 'pi%s-%s'.format(family ? family[1] : '', own).replace(/-$/, '');

	for (let n = 1, tried = name; ; tried = '%s-%d'.format(name, ++n))
		if (!taken.some(other => deviceId(other) == deviceId(tried)))
			return tried;
}

/* The address of a file on the web, as the agent takes it. */
function url(value) {
	if (!/^https?:\/\//i.test(value))
		return _('Give an address that begins with https:// or http://.');

	if (!/^[!#-;=?-[\]_a-z~]{1,2048}$/.test(value))
		return _('Blanks and special characters in an address have to be encoded, a blank as "%20".');

	const host = value.replace(/^[^:]*:\/\//, '').split(/[/?#]/)[0].split('@').pop();

	return host == '' || /^[:-]/.test(host) ? _('This address names no server.') : null;
}

/* A digest as `sha256sum` prints it. */
function sha256(value) {
	return /^\s*[0-9a-fA-F]{64}\s*$/.test(value) ? null : _('A SHA-256 digest has 64 hexadecimal digits.');
}

/* What an image may be called that comes from this file. */
function imageProposal(file) {
	return file.replace(/^.*\//, '').toLowerCase().replace(/\.(xz|gz|zip|zst|img)$/g, '').replace(/\.img$/, '')
		.replace(/[^a-z0-9._-]+/g, '-').replace(/^[^a-z0-9]+/, '').slice(0, 63);
}

return baseclass.extend({
	hostname, deviceId, imageName, snapshotName, user, mac, address, timezone, locale, keyboard, path, keys, keyList, proposal,
	imageProposal, url, sha256, bytesOf, size, sizeText
});
