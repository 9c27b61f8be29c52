'use strict';
'require baseclass';

/* What the agent's answers look like to people. */

const STATES = {
	ready: [ _('ready'), '' ],
	preparing: [ _('being prepared'), 'notice' ],
	blocked: [ _('blocked'), 'warning' ],
	disabled: [ _('disabled'), '' ],
	booting: [ _('booting'), 'notice' ],
	stuck: [ _('stuck'), 'error' ],
	running: [ _('running'), 'success' ],
	off: [ _('shut down'), '' ],
	lost: [ _('lost'), 'error' ],
	stopped: [ _('ended'), '' ],
	abandoned: [ _('given up'), 'warning' ]
};

/* How a boot came to its end. */
const ENDS = {
	shut_down: [ _('shut down'), '', _('It was shut down.') ],
	rebooted: [ _('restarted'), '', _('It was restarted in order.') ],
	reset: [ _('reset'), 'warning', _('It started again without having shut down: power cut, crash or watchdog.') ],
	lost: [ _('lost'), 'error', _('It fell silent while it ran: power cut, cable or crash.') ],
	started_over: [ _('started over'), 'warning', _('It started over before its system ran.') ],
	silent: [ _('fell silent'), 'warning', _('Nothing more was heard of it before its system ran.') ]
};

const CONFIDENCE = {
	certain: _('certain: the packets show it'),
	likely: _('likely: nothing else is known to look like this'),
	possible: _('possible: one of several causes that look alike')
};

const SPEAKERS = {
	bootloader: _('bootloader'),
	kernel: _('kernel')
};

/* The sentences are the agent's own: in lists of boots it sends them instead of the names. */
const STAGES = {
	link: _('the network cable has link'),
	discover: _('asked for an address (DHCP DISCOVER)'),
	offer: _('was offered an address'),
	request: _('took the address'),
	ack: _('address confirmed'),
	tftp: _('first TFTP request'),
	firmware: _('loading firmware'),
	config: _('reading config.txt'),
	device_tree: _('loading the device tree'),
	kernel: _('loading the kernel'),
	initramfs: _('loading the initramfs'),
	os_dhcp: _('Linux asked for an address'),
	portmap: _('asked for the NFS port'),
	mount: _('mounted its root'),
	first_read: _('read its first file'),
	init: _('started init'),
	first_write: _('first write: the system is coming up'),
	ready: _('the system is up')
};

const OUTCOMES = {
	loading: _('loading'),
	done: _('loaded'),
	missing: _('not there'),
	probed: _('is there, not loaded'),
	refused: _('refused (TFTP error %d)'),
	aborted: _('the Pi gave up: %s'),
	lost: _('the Pi fell silent'),
	read_error: _('cannot be read: %s')
};

const JOB_KINDS = {
	import: _('Import of image "%s"'),
	examine: _('Which boards the image "%s" boots'),
	provision: _('Root file system of "%s"'),
	snapshot: _('Snapshot of "%s"'),
	rollback: _('Roll-back of "%s"'),
	backup: _('Backup of "%s"'),
	restore: _('Restore of "%s"'),
	replace: _('New root file system of "%s"'),
	'delete': _('Deletion of the files of "%s"')
};

const JOB_STATES = {
	waiting: _('waiting'),
	running: _('under way'),
	done: _('done'),
	failed: _('failed'),
	cancelled: _('cancelled'),
	interrupted: _('interrupted: the agent was stopped')
};

/* "Pi 2, 3, 3+, 4": the families that an image boots. */
function boots(fits) {
	if (!fits)
		return _('unknown');

	const names = fits.filter(fit => fit.ok).map(fit => fit.model.replace(/^pi/, ''));

	return names.length ? 'Pi ' + names.join(', ') : _('no Raspberry Pi');
}

function bytes(n) {
	const units = [ 'B', 'KB', 'MB', 'GB', 'TB' ];
	let unit = 0;

	for (n = Number(n) || 0; n >= 999.5 && unit < units.length - 1; unit++)
		n /= 1000;

	return '%s %s'.format(unit == 0 || n >= 99.5 ? Math.round(n) : n.toPrecision(2), units[unit]);
}

/* What a Pi's files take, and of how much where they may not take all there is. */
function taken(pi) {
	if (pi.quota)
		return _('%s of %s').format(pi.used == null ? '–' : bytes(pi.used), bytes(pi.quota));

	return pi.disk_bytes == null ? '–' : bytes(pi.disk_bytes);
}

/* 0.308 s, 16.9 s, 2 min 5 s */
function duration(ms) {
	const seconds = Math.max(0, ms) / 1000;

	if (seconds < 10)
		return _('%s s').format(seconds.toFixed(3));

	if (seconds < 100)
		return _('%s s').format(seconds.toFixed(1));

	return span(seconds);
}

/* Seconds in the two largest units. */
function span(seconds) {
	const s = Math.floor(Math.max(0, seconds));

	if (s < 60)
		return _('%d s').format(s);

	if (s < 3600)
		return _('%d min %d s').format(Math.floor(s / 60), s % 60);

	if (s < 86400)
		return _('%d h %d min').format(Math.floor(s / 3600), Math.floor(s / 60) % 60);

	return _('%d d %d h').format(Math.floor(s / 86400), Math.floor(s / 3600) % 24);
}

/* The router's clock and the browser's may differ: nothing is in the future. */
function ago(then_ms, now_ms) {
	const seconds = (now_ms - then_ms) / 1000;

	if (seconds < 10)
		return _('just now');

	if (seconds < 60)
		return _('%d s ago').format(seconds);

	if (seconds < 3600)
		return _('%d min ago').format(Math.floor(seconds / 60));

	if (seconds < 172800)
		return _('%d h ago').format(Math.floor(seconds / 3600));

	return _('%d days ago').format(Math.floor(seconds / 86400));
}

function date(ms) {
	return ms ? new Date(ms).toLocaleString() : '';
}

function state(name) {
	return STATES[name]?.[0] ?? name;
}

/* The theme's class for a state's label. */
function stateClass(name) {
	return STATES[name]?.[1] ?? '';
}

/* Word and class of a boot: how it ended, once it has. In lists it has the worst finding's severity only. */
function bootState(boot) {
	if (boot.state == 'booting' && (boot.severity == 'error' || boot.findings?.some(finding => finding.severity == 'error')))
		return { word: state('stuck'), style: stateClass('stuck') };

	const [ word, style ] = ENDS[boot.end] ?? [ state(boot.state), stateClass(boot.state) ];

	return { word, style };
}

/* How a boot came to its end, as a sentence; empty while it goes on. */
function end(boot) {
	return ENDS[boot?.end]?.[2] ?? '';
}

function confidence(name) {
	return CONFIDENCE[name] ?? name ?? '';
}

function speaker(name) {
	return SPEAKERS[name] ?? name ?? '';
}

function stage(name) {
	return STAGES[name] ?? name;
}

/* The place of a stage in a boot as it normally goes; those that nobody here knows come last. */
function stageOrder(name) {
	const place = Object.keys(STAGES).indexOf(name);

	return place < 0 ? Object.keys(STAGES).length : place;
}

/* `"missing"`, or `{"aborted": "why"}` */
function outcome(value) {
	if (typeof value == 'string')
		return OUTCOMES[value] ?? value;

	const [ name, detail ] = Object.entries(value ?? {})[0] ?? [ '', '' ];

	return (OUTCOMES[name] ?? name + ' %s').format(detail);
}

function jobTitle(job) {
	return (JOB_KINDS[job.kind] ?? job.kind + ' "%s"').format(job.subject);
}

function jobIsOver(job) {
	return job.state != 'waiting' && job.state != 'running';
}

/* 0 to 100, or null while nobody knows. */
function percent(job) {
	const part = job.total_bytes > 0 ? job.bytes / job.total_bytes :
		job.total_files > 0 ? job.files / job.total_files : NaN;

	return isNaN(part) ? null : Math.floor(Math.max(0, Math.min(1, part)) * 100);
}

/* "8.1 MB/s, 1 min 5 s left"; empty while nobody knows. */
function pace(rate, left) {
	return [
		rate > 0 ? _('%s/s').format(bytes(rate)) : null,
		rate > 0 && left !== null ? _('%s left').format(span(left)) : null
	].filter(part => part !== null).join(', ');
}

/* Where a job stands, in one line; `rate` in bytes a second, if that is known. */
function jobLine(job, rate) {
	const name = JOB_STATES[job.state] ?? job.state;

	if (jobIsOver(job))
		return job.message ? '%s: %s'.format(name, job.message) : name;

	const share = percent(job);
	const done = job.bytes > 0 ? bytes(job.bytes) : null;

	const left = job.total_bytes > 0 ? Math.max(0, job.total_bytes - job.bytes) / rate : null;

	return [ share !== null ? '%d %%'.format(share) : name, done, pace(rate, left) ].filter(part => part).join(', ');
}

/* Whether an image boots on boards of that model: `{ ok, why }`, or null where nobody knows. */
function fit(image, model) {
	return image.fits?.find(fit => fit.model === model) ?? null;
}

/* Who uses an image, for those who want it gone. */
function list(names, most) {
	return names.length <= most ? names.join(', ') :
		_('%s and %d more').format(names.slice(0, most).join(', '), names.length - most);
}

return baseclass.extend({
	bytes, taken, duration, span, ago, date, state, stateClass, bootState, boots, end, confidence, speaker, stage, stageOrder, outcome,
	jobTitle, jobIsOver, percent, pace, jobLine, fit, list
});
