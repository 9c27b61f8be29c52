import test from 'node:test';
import assert from 'node:assert/strict';
import { load } from './load.mjs';

/* What only a browser has, for modules that do not use it while they are loaded. */
const BROWSER = { dom: {}, ui: {}, uci: {}, poll: {}, rpc: { declare: () => () => Promise.resolve({}) } };
const KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ5QmDtsYk2mJYtwFsNDVvxRCQQ5ZQDbCk7l8NvVgBHr';

test('names: what a Pi without a name is called', () => {
	const names = load('piboot.names');
	const pi = { board: 'Raspberry Pi 4B v1.2, 4 GB', mac: 'dc:a6:32:01:02:03', serial: '38c128c0' };

	assert.equal(names.proposal(pi, []), 'pi4-38c128c0');
	assert.equal(names.proposal({ ...pi, serial: null }, []), 'pi4-010203');
	assert.equal(names.proposal({ ...pi, board: 'Raspberry Pi CM4 v1.0' }, []), 'pi-38c128c0');
	assert.equal(names.proposal(pi, [ 'pi4_38c128c0', 'pi4-38c128c0-2' ]), 'pi4-38c128c0-3');
	assert.equal(names.hostname(names.proposal({}, [])), null);
});

test('names: keys, one a line', () => {
	const names = load('piboot.names');

	assert.equal(names.keyList(''), null);
	assert.equal(names.keyList(`${KEY} me@home\n\n# mine\n  ${KEY}\t x \n`), null);
	assert.deepEqual(names.keys(`${KEY}   me\n\n# mine\n`), [ `${KEY} me` ]);
	assert.match(names.keyList(`${KEY}\n-----BEGIN OPENSSH PRIVATE KEY-----`), /^Key 2 /);
	assert.match(names.keyList('command="x" ' + KEY), /^Key 1 /);
});

test('names: what an image is called that comes from a file', () => {
	const names = load('piboot.names');

	assert.equal(names.imageProposal('/mnt/ssd/2026-06-01-raspios-trixie-arm64-lite.img.xz'), '2026-06-01-raspios-trixie-arm64-lite');
	assert.equal(names.imageProposal('/tmp/My Image (1).IMG'), 'my-image-1-');
	for (const file of [ '/x/<img src=x>.img', '/x/..img', '/x/' + 'a'.repeat(99), '/x/-a' ])
		assert.equal(names.imageName(names.imageProposal(file)) === null || names.imageProposal(file) === '', true, file);
});

test('names: of snapshots, and of machines', () => {
	const names = load('piboot.names');

	for (const good of [ 'a', '2026-11-20-151504', 'before_x.1' ])
		assert.equal(names.snapshotName(good), null, good);
	for (const bad of [ '', '../x', 'A', '.swap', '-a', 'a b', 'a'.repeat(64) ])
		assert.match(names.snapshotName(bad), /^A snapshot name/, bad);
	for (const good of [ 'dc:a6:32:79:26:df', 'DC-A6-32-79-26-DF' ])
		assert.equal(names.mac(good), null, good);
	for (const bad of [ '', 'dc:a6:32:79:26', 'dc:a6:32:79:26:dg', ' dc:a6:32:79:26:df' ])
		assert.match(names.mac(bad), /^This is no MAC/, bad);
});

test('names: sizes, as the agent reads and writes them', () => {
	const names = load('piboot.names');

	for (const [ text, bytes, again ] of [
		[ '8G', 8e9, '8G' ], [ '8g', 8e9, '8G' ], [ '8 GB', 8e9, '8G' ], [ '7.5G', 75e8, '7500M' ], [ '0.5T', 5e11, '500G' ],
		[ '8Gi', 2 ** 33, '8Gi' ], [ '8GiB', 2 ** 33, '8Gi' ], [ '1.5Ki', 1536, '1536' ], [ '500M', 5e8, '500M' ], [ '4096', 4096, '4Ki' ], [ '0', 0, '0' ]
	]) {
		assert.equal(names.bytesOf(text), bytes, text);
		assert.equal(names.size(text), null, text);
		assert.equal(names.sizeText(bytes), again, text);
	}

	for (const bad of [ '', 'G', '-1', '8X', '8GG', '8.G', '.5G', '1.2.3G', '8Gib/s', '20000000T', '1e9', '8i' ])
		assert.match(names.size(bad), /^This is no size/, bad);
});

test('device: a quota is sent if it is another', () => {
	const device = load('piboot.device', BROWSER);
	const form = { hostname: 'lion', ip: '', user: '', password: '', keys: [], disabled: false };
	const detail = { hostname: 'lion', fixed_ip: null, user: null, state: 'ready', ssh_keys: [] };

	assert.deepEqual(device.difference({ ...detail, quota: 8e9 }, { ...form, quota: '8 GB' }), {});
	assert.deepEqual(device.difference({ ...detail, quota: 8e9 }, { ...form, quota: '9G' }), { quota: '9G' });
	assert.deepEqual(device.difference({ ...detail, quota: 8e9 }, { ...form, quota: '' }), { quota: '' });
	assert.deepEqual(device.difference(detail, { ...form, quota: '' }), {});
});

test('text: what a Pi takes', () => {
	const text = load('piboot.text');

	assert.equal(text.taken({}), '–');
	assert.equal(text.taken({ disk_bytes: 12e8 }), '1.2 GB');
	assert.equal(text.taken({ disk_bytes: 1, used: 12e8, quota: 8e9 }), '1.2 GB of 8.0 GB');
	assert.equal(text.taken({ quota: 8e9 }), '– of 8.0 GB');
});

test('text: sizes and times', () => {
	const text = load('piboot.text');

	assert.deepEqual([ 0, 999, 1000, 99499, 123456, 999499, 1e6, 54e9, 271e12 ].map(text.bytes),
		[ '0 B', '999 B', '1.0 KB', '99 KB', '123 KB', '999 KB', '1.0 MB', '54 GB', '271 TB' ]);
	assert.deepEqual([ 0, 308, 16890, 99949, 125000 ].map(text.duration), [ '0.000 s', '0.308 s', '16.9 s', '99.9 s', '2 min 5 s' ]);
	assert.deepEqual([ 59, 3599, 3600, 90061 ].map(text.span), [ '59 s', '59 min 59 s', '1 h 0 min', '1 d 1 h' ]);
	assert.equal(text.ago(5000, 1000), 'just now', 'a clock that is ahead');
	assert.equal(text.ago(0, 120e3), '2 min ago');
});

test('text: outcomes of files, with and without words', () => {
	const text = load('piboot.text');

	assert.equal(text.outcome('missing'), 'not there');
	assert.equal(text.outcome({ aborted: 'Early terminate %s' }), 'the Pi gave up: Early terminate %s');
	assert.equal(text.outcome({ refused: 2 }), 'refused (TFTP error 2)');
	assert.equal(text.outcome('something_new'), 'something_new');
	assert.equal(text.outcome({ something_new: 7 }), 'something_new 7');
});

test('text: jobs', () => {
	const text = load('piboot.text');
	const job = { kind: 'import', subject: 'small', state: 'running', bytes: 5e6, total_bytes: 10e6, files: 0, total_files: 0, message: '' };

	assert.equal(text.jobLine(job), '50 %, 5.0 MB');
	assert.equal(text.jobLine({ ...job, total_bytes: 0 }), 'under way, 5.0 MB');
	assert.equal(text.jobLine({ ...job, bytes: 0, total_bytes: 0, files: 1, total_files: 4 }), '25 %');
	assert.equal(text.jobLine({ ...job, state: 'failed', message: 'no space' }), 'failed: no space');
	assert.equal(text.percent({ ...job, bytes: 11e6 }), 100);
	assert.equal(text.jobTitle({ ...job, kind: 'provision' }), 'Root file system of "small"');
});

test('timeline: bars on one scale, each until the next stage', () => {
	const timeline = load('piboot.timeline');
	const boot = {
		id: 2, device: 'running_lion', stages: [
			{ stage: 'discover', at_ms: 0 }, { stage: 'kernel', at_ms: 500, detail: 'kernel8.img' }, { stage: 'mount', at_ms: 750 }
		],
		files: [ { at_ms: 500, took_ms: 500 } ]
	};
	const bars = timeline.bars(boot);

	assert.equal(timeline.end(boot), 1000);
	assert.deepEqual(bars.map(bar => [ bar.left, bar.width, bar.took ]), [ [ 0, 50, 500 ], [ 50, 25, 250 ], [ 75, 25, 250 ] ]);
	assert.equal(bars[1].detail, 'kernel8.img');
	assert.deepEqual(timeline.bars({}), []);
	assert.deepEqual(timeline.bars({ stages: [ { stage: 'discover', at_ms: 0 } ] }).map(bar => [ bar.left, bar.width ]), [ [ 0, 0 ] ]);
	assert.deepEqual(timeline.findings({}), []);
	assert.equal(timeline.fileName({ id: 7, device: null, mac: 'dc:a6:32:01:02:03' }, 'json'), 'piboot-dc-a6-32-01-02-03-7.json');
});

test('timeline: a file whose size was asked for before is there once', () => {
	const timeline = load('piboot.timeline');
	const file = (name, outcome) => ({ name, outcome, took_ms: 500, acknowledged: 1e6 });
	const files = timeline.files({ files: [ file('a', 'probed'), file('a', 'done'), file('b', 'probed'), file('c', 'missing'), file('a', { aborted: 'why' }) ] });

	assert.deepEqual(files.map(file => [ file.key, file.name, file.outcome ]), [ [ 1, 'a', 'done' ], [ 2, 'b', 'probed' ], [ 3, 'c', 'missing' ], [ 4, 'a', { aborted: 'why' } ] ]);
	assert.deepEqual(timeline.files({}), []);
	assert.equal(timeline.rate(files[0]), 2e6);
	assert.equal(timeline.rate({ took_ms: 0, acknowledged: 5 }), null);
});

test('timeline: beside the last good boot', () => {
	const timeline = load('piboot.timeline');
	const stages = (...list) => list.map(([ stage, at_ms ]) => ({ stage, at_ms }));
	const good = { id: 3, stages: stages([ 'discover', 0 ], [ 'tftp', 1000 ], [ 'kernel', 5000 ], [ 'mount', 9000 ]) };
	const boot = { id: 4, state: 'booting', stages: stages([ 'link', 0 ], [ 'tftp', 1499 ], [ 'kernel', 6200 ]), good };

	assert.deepEqual(timeline.bars(boot).map(bar => bar.compared), [ '', '', '1.200 s later' ]);
	assert.equal(timeline.compared({ stage: 'kernel', at_ms: 4400 }, good), '0.600 s earlier');
	assert.equal(timeline.compared({ stage: 'kernel', at_ms: 6200 }, undefined), '');
	assert.deepEqual(timeline.next(boot), { stage: 'mount', at_ms: 9000 });
	assert.equal(timeline.next({ ...boot, state: 'running' }), null, 'what runs waits for nothing');
	assert.equal(timeline.next({ ...boot, good: undefined }), null);
	assert.equal(timeline.next({ ...boot, stages: good.stages }), null);
	assert.deepEqual(timeline.next({ ...boot, stages: [] }), { stage: 'discover', at_ms: 0 });

	const muddled = { id: 3, stages: stages([ 'tftp', 1 ], [ 'config', 1 ], [ 'something_new', 1 ], [ 'ack', 1 ], [ 'discover', 0 ], [ 'kernel', 2 ]) };
	const hung = { id: 4, state: 'booting', stages: stages([ 'discover', 0 ], [ 'ack', 1 ], [ 'tftp', 1 ]), good: muddled };
	assert.deepEqual(timeline.next(hung), { stage: 'config', at_ms: 1 });
	assert.equal(muddled.stages[0].stage, 'tftp', 'what the agent said is left alone');
});

test('timeline: the console, and packets', () => {
	const timeline = load('piboot.timeline');
	const line = (at_ms) => ({ at_ms, from: 'kernel', text: 'x' });
	const boot = { id: 4, console: [ line(5) ] };

	assert.equal(timeline.consoleLine(line(5)), '0.005 s  kernel: x');
	assert.equal(timeline.consoleLine({ at_ms: 5, from: 'somebody', text: 'x' }), '0.005 s  somebody: x');
	assert.equal(timeline.consoleSign(boot), timeline.consoleSign({ ...boot, console: [ line(5), line(6) ] }), 'only longer');
	assert.notEqual(timeline.consoleSign(boot), timeline.consoleSign({ ...boot, console_dropped: 1 }));
	assert.notEqual(timeline.consoleSign(boot), timeline.consoleSign({ ...boot, id: 5 }));
	assert.deepEqual([ ...timeline.bytes('1MOyoQD/') ], [ 0xd4, 0xc3, 0xb2, 0xa1, 0, 0xff ]);
	assert.throws(() => timeline.bytes('<pcap>'));
});

test('text: how a boot stands, and how it ended', () => {
	const text = load('piboot.text');

	assert.deepEqual(text.bootState({ state: 'booting' }), { word: 'booting', style: 'notice' });
	assert.deepEqual(text.bootState({ state: 'stopped', end: 'shut_down' }), { word: 'shut down', style: '' });
	assert.deepEqual(text.bootState({ state: 'stopped', end: 'something_new' }), { word: 'ended', style: '' });
	assert.equal(text.bootState({ state: 'booting', findings: [ { severity: 'warning' } ] }).word, 'booting');
	assert.equal(text.bootState({ state: 'booting', findings: [ { severity: 'warning' }, { severity: 'error' } ] }).word, 'stuck');
	assert.equal(text.bootState({ state: 'stopped', end: 'lost', findings: [ { severity: 'error' } ] }).word, 'lost');
	assert.match(text.end({ end: 'lost' }), /^It fell silent/);
	assert.deepEqual([ text.end({ end: 'something_new' }), text.end({}), text.end(null) ], [ '', '', '' ]);
	for (const state of [ 'preparing', 'blocked', 'booting', 'stuck', 'running', 'off', 'lost' ])
		assert.ok(text.stateClass(state) || text.state(state) !== state, state);
	assert.equal(text.confidence('something_new'), 'something_new');
});

test('led: codes are found by counting', () => {
	const led = load('piboot.led', BROWSER);
	const codes = [ { long: 0, short: 3 }, { long: 0, short: 7 }, { long: 2, short: 3 } ];

	assert.equal(led.drawn(codes[2]), '▬▬ ●●●');
	assert.deepEqual(codes.map(led.counted), [ '3 short', '7 short', '2 long, 3 short' ]);
	assert.deepEqual(led.choose(codes, '', ''), codes);
	assert.deepEqual(led.choose(codes, '0', '3'), [ codes[0] ], 'no long flash is a number, too');
	assert.deepEqual(led.choose(codes, '', '3'), [ codes[0], codes[2] ]);
	assert.deepEqual(led.choose(codes, '2', '7'), []);
});

test('api: the agent\'s words arrive, and every other failure becomes a sentence', async () => {
	const answers = [];
	const rpc = { declare: (options) => (...args) => answers.shift()(options, args) };
	const api = load('piboot.api', { rpc });
	const says = (answer) => answers.push(() => answer);
	const fails = (text, name) => answers.push(() => Promise.reject(Object.assign(new Error(text), name ? { name } : {})));
	const failure = async (call) => { try { await call } catch (error) { return error } };

	says(Promise.resolve({ error: { code: 'failed', message: 'image \'small\' is used by lion' } }));
	const error = await failure(api.imageRemove({ name: 'small' }));
	assert.deepEqual([ error.code, error.message ], [ 'failed', 'image \'small\' is used by lion' ]);

	answers.push((options, args) => {
		assert.deepEqual(options, { object: 'piboot', method: 'unenroll', params: [ 'id', 'delete' ] });
		assert.deepEqual(args, [ 'lion', false ]);
		return Promise.resolve({ id: 'lion' });
	});
	assert.deepEqual(await api.unenroll({ 'delete': false, id: 'lion' }), { id: 'lion' });

	says(Promise.resolve(0));
	assert.deepEqual(await api.jobCancel({ job: 1 }), {});

	answers.push((options, args) => {
		assert.deepEqual([ options.object, options.method, args ], [ 'session', 'access', [ 'ubus', 'piboot', 'led' ] ]);
		return Promise.resolve(true);
	});
	assert.equal(await api.may('led'), true);
	fails('out of cheese');
	assert.equal(await api.may('led'), false);

	const expected = [
		[ () => fails('RPC call to piboot/status failed with error -32000: Object not found'), 'absent' ],
		[ () => fails('RPC call to piboot/status failed with error -32001: Session not found'), 'expired' ],
		[ () => fails('RPC call to piboot/status failed with error -32002: Access denied'), 'denied' ],
		[ () => fails('Login session is expired', 'SessionError'), 'expired' ],
		[ () => fails('RPC call to piboot/status failed with HTTP error 403: Forbidden'), 'expired' ],
		[ () => fails('XHR request timed out'), 'timeout' ],
		[ () => fails('XHR request aborted by browser'), 'unreachable' ],
		[ () => fails('out of cheese'), 'failed' ],
		[ () => says(Promise.resolve(3)), 'unknown_method' ],
		[ () => says(Promise.resolve({ error: { code: 'unknown_method', message: 'there is no method: x' } })), 'unknown_method' ],
		[ () => says(Promise.resolve(4)), 'status' ],
		[ () => says(Promise.resolve(6)), 'denied' ],
		[ () => says(Promise.resolve(7)), 'timeout' ],
		[ () => says(Promise.resolve(9)), 'status' ]
	];

	for (const [ arrange, code ] of expected) {
		arrange();
		const error = await failure(api.status());
		assert.equal(error.code, code);
		assert.match(error.message, /[.:]/);
	}
});

/* A file of so many bytes, an agent that takes it, and what breaks: `breaks(query, length, n)` gives an error or null. */
function uploading(size, breaks, took = () => 3000) {
	const upload = load('piboot.upload');
	const asked = [], slept = [];
	let received = 0, now = 0;
	const post = async (query, body, begun, progress) => {
		begun({ abort() {} });
		asked.push(body === null ? 0 : body.end - body.begin);
		now += took(body);

		if (query.name)
			return { job: 7 };

		const broken = breaks(query, body, asked.length);

		if (broken) {
			/* half of it arrived all the same */
			received += Math.floor((body?.end - body?.begin || 0) / 2);
			throw Object.assign(new Error(broken), { code: broken });
		}

		assert.ok(query.offset <= received, 'no gap');
		received = Math.max(received, query.offset + (body === null ? 0 : body.end - body.begin));
		progress(1);
		return { received };
	};
	const file = { name: 'x.img', size, slice: (begin, end) => ({ begin, end }) };
	const one = upload.create(file, 'x', () => null, { post, now: () => now, sleep: async ms => { slept.push(ms) } });

	return { one, asked, slept, received: () => received };
}

test('upload: pieces get as long as a few seconds allow, and never as long as what trips an old uhttpd', async () => {
	const quick = uploading(100e6, () => null, () => 100);

	assert.equal(await quick.one.run(), 7);
	assert.equal(quick.received(), 100e6);
	assert.equal(Math.max(...quick.asked), 4 * 1024 * 1024 - 1);
	assert.ok(quick.asked.slice(1).every(length => length % 4096 != 0));

	const slow = uploading(3e6, () => null, body => body ? (body.end - body.begin) / 10 : 0);

	await slow.one.run();
	assert.ok(slow.asked.at(-2) < 100000, slow.asked);
	assert.equal(slow.received(), 3e6);

	for (const size of [ 1, 4095, 4096, 8192, 1 << 20 ]) {
		const small = uploading(size, () => null);

		await small.one.run();
		assert.equal(small.received(), size);
		assert.ok(small.asked.slice(1).every(length => length % 4096 != 0), `${size}: ${small.asked}`);
	}
});

test('upload: what breaks is asked about and goes on, until it breaks too often', async () => {
	const bumpy = uploading(5e6, (query, body, n) => n == 3 || n == 4 || n == 7 ? 'again' : null);

	await bumpy.one.run();
	assert.equal(bumpy.received(), 5e6);
	assert.deepEqual(bumpy.slept, [ 500, 1000, 500 ]);
	assert.deepEqual(bumpy.asked.slice(3, 5), [ 0, 0 ], 'where to go on is asked first');

	const dead = uploading(5e6, () => 'again');

	await assert.rejects(dead.one.run(), { code: 'again' });
	assert.equal(dead.slept.length, 7);

	const denied = uploading(5e6, () => 'denied');

	await assert.rejects(denied.one.run(), { code: 'denied' });
	assert.deepEqual(denied.slept, []);

	const cancelled = uploading(5e6, (query, body, n) => { if (n == 3) cancelled.one.cancel() });

	await assert.rejects(cancelled.one.run(), { code: 'cancelled' });
	assert.equal(cancelled.asked.length, 3);
});

test('upload: what the web server answers, in words', () => {
	const upload = load('piboot.upload');
	const codes = [ [ 403, null ], [ 404, null ], [ 413, null ], [ 502, null ], [ 503, { code: 'again', message: 'x' } ], [ 503, { code: 'absent', message: 'x' } ], [ 409, { code: 'failed', message: 'x' } ], [ 500, null ] ];

	assert.deepEqual(codes.map(([ status, error ]) => upload.refusal(status, error).code),
		[ 'denied', 'failed', 'again', 'again', 'again', 'absent', 'failed', 'failed' ]);
});

test('text: how fast a job is, and how long it takes', () => {
	const text = load('piboot.text');
	const job = { state: 'running', bytes: 25e6, total_bytes: 100e6 };

	assert.equal(text.jobLine(job, 2.5e6), '25 %, 25 MB, 2.5 MB/s, 30 s left');
	assert.equal(text.jobLine(job, null), '25 %, 25 MB');
	assert.equal(text.jobLine({ ...job, total_bytes: 0 }, 2.5e6), 'under way, 25 MB, 2.5 MB/s');
	assert.equal(text.jobLine(job, 0), '25 %, 25 MB');
});
