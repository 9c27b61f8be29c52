'use strict';
'require baseclass';
'require rpc';

/*
 * The agent's ubus object, one function a verb. A call that fails rejects with an Error whose message is a sentence for
 * people; its `code` is the agent's word (unknown_method …), or one of: absent, denied, expired, timeout, unreachable, status.
 */

function problem(code, message) {
	return Object.assign(new Error(message), { code });
}

/*
 * uhttpd passes on status and answer of a call that failed, and of the two LuCI shows the status only: so errors are to
 * come as answers (no `reject` in declare). Where the web server is not uhttpd there is nothing but the status.
 */
function settle(method, reply) {
	if (reply?.error?.message)
		throw problem(reply.error.code ?? 'failed', reply.error.message);

	if (reply === 0 || reply === null || reply === undefined)
		return {};

	if (typeof reply == 'number')
		throw statusProblem(method, reply);

	return reply;
}

function statusProblem(method, status) {
	switch (status) {
	case 3:
		return problem('unknown_method', _('The agent does not know "%s": it is older than this page. Update the package piboot.').format(method));

	case 4:
		return problem('status', _('The agent does not know it any more, or was restarted in the meantime: try again.'));

	case 6:
		return problem('denied', _('This login may not do that.'));

	case 7:
		return problem('timeout', _('The agent did not answer in time. It may be busy: try again.'));

	default:
		return problem('status', _('The agent refused "%s" (ubus status %d) and did not say why: look into the system log.').format(method, status));
	}
}

/* What LuCI rejects with: by its text, since there is nothing else. */
function foreignProblem(method, error) {
	const text = error?.message ?? String(error);
	const code = /failed with error (-[0-9]+)/.exec(text)?.[1];

	if (error?.code)
		return error;

	switch (code) {
	case '-32000':
		return problem('absent', _('The agent is not running.'));

	case '-32001':
		return problem('expired', _('The session has expired: log in again.'));

	case '-32002':
		return problem('denied', _('This login may not do that, or the session has expired: log in again.'));

	case '-32003':
		return problem('timeout', _('The agent did not answer in time. It may be busy: try again.'));
	}

	if (error?.name == 'SessionError' || /Login session is expired/.test(text))
		return problem('expired', _('The session has expired: log in again.'));

	if (/timed out/.test(text))
		return problem('timeout', _('The router did not answer in time: try again.'));

	if (/HTTP error 40[13]/.test(text))
		return problem('expired', _('The session has expired: log in again.'));

	if (/aborted by browser|NetworkError|HTTP error/.test(text))
		return problem('unreachable', _('The router cannot be reached: check the connection.'));

	return problem('failed', _('"%s" failed: %s').format(method, text));
}

function verb(method, ...params) {
	const call = rpc.declare({ object: 'piboot', method, params });

	return (args) => call(...params.map(name => args?.[name] ?? undefined)).then(
		reply => settle(method, reply),
		error => { throw foreignProblem(method, error) });
}

const access = rpc.declare({ object: 'session', method: 'access', params: [ 'scope', 'object', 'function' ], expect: { access: false } });

/* Whether this login may call a method; where nobody can tell, it may not. */
function may(method) {
	return access('ubus', 'piboot', method).then(granted => granted === true, () => false);
}

return baseclass.extend({
	status: verb('status'),
	devices: verb('devices'),
	device: verb('device', 'id'),
	images: verb('images'),
	jobs: verb('jobs'),
	boots: verb('boots', 'device', 'limit'),
	boot: verb('boot', 'boot'),
	bootPackets: verb('boot_packets', 'boot'),
	led: verb('led'),
	check: verb('check'),
	snapshots: verb('snapshots', 'id'),

	enroll: verb('enroll', 'mac', 'serial', 'hostname', 'image', 'ip', 'ssh_keys', 'root', 'user', 'password', 'quota'),
	deviceEdit: verb('device_edit', 'id', 'hostname', 'ip', 'ssh_keys', 'user', 'password', 'quota', 'disabled', 'force'),
	deviceSwitch: verb('device_switch', 'id', 'image', 'keep', 'force', 'root'),
	deviceReset: verb('device_reset', 'id', 'keep', 'force', 'root'),
	unenroll: verb('unenroll', 'id', 'delete'),
	imageImport: verb('image_import', 'source', 'name', 'sha256', 'size'),
	osList: verb('os_list', 'url', 'board'),
	disks: verb('disks'),
	imageRemove: verb('image_remove', 'name'),
	jobCancel: verb('job_cancel', 'job'),
	volumeAccept: verb('volume_accept'),
	deviceClone: verb('device_clone', 'from', 'snapshot', 'mac', 'serial', 'hostname', 'ip', 'ssh_keys', 'root'),
	snapshot: verb('snapshot', 'id', 'name'),
	snapshotRemove: verb('snapshot_remove', 'id', 'snapshot'),
	rollback: verb('rollback', 'id', 'snapshot', 'discard'),

	may, settle, foreignProblem
});
