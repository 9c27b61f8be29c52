'use strict';
'require baseclass';
'require piboot.text as text';

/* A boot as bars on one scale. Pure: what the page shows of it is made in view/piboot/boots.js. */

/* The last moment of a boot that anything is known of, in ms since its first packet. */
function end(boot) {
	const stages = (boot.stages ?? []).map(stage => stage.at_ms);
	const files = (boot.files ?? []).map(file => file.at_ms + file.took_ms);
	const lines = (boot.console ?? []).map(line => line.at_ms);

	return Math.max(0, ...stages, ...files, ...lines);
}

/* Stages in the order they were reached: when, how long until the next one, and the bar in per cent of the whole. */
function bars(boot) {
	const stages = boot.stages ?? [];
	const whole = end(boot);
	const share = (ms) => whole > 0 ? Math.max(0, Math.min(100, ms / whole * 100)) : 0;

	return stages.map((stage, i) => {
		const last = i + 1 == stages.length;
		const until = last ? whole : Math.max(stage.at_ms, stages[i + 1].at_ms);

		return {
			key: stage.stage,
			at: stage.at_ms,
			took: until - stage.at_ms,
			last,
			text: text.stage(stage.stage),
			detail: stage.detail ?? '',
			compared: compared(stage, boot.good),
			left: share(stage.at_ms),
			width: share(until - stage.at_ms)
		};
	});
}

/* A stage that comes later or earlier than in the boot that is compared with by less than this is as it was, in ms. */
const AS_BEFORE = 500;

/* "1.2 s later": when a stage was reached, by when it was in `good`; empty if that is nothing to speak of. */
function compared(stage, good) {
	const then = good?.stages?.find(other => other.stage == stage.stage);
	const later = then ? stage.at_ms - then.at_ms : 0;

	if (Math.abs(later) < AS_BEFORE)
		return '';

	return (later > 0 ? _('%s later') : _('%s earlier')).format(text.duration(Math.abs(later)));
}

/*
 * The stage that came next in `good` and has not come yet; null if none is to come. The agent hears of DHCP and TFTP on
 * different threads, so that stages of the same moment may be told in another order than they come in.
 */
function next(boot) {
	const stages = boot.stages ?? [];
	const reached = (stage) => stages.some(seen => seen.stage == stage.stage);
	const then = (boot.good?.stages ?? []).slice().sort((a, b) => a.at_ms - b.at_ms || text.stageOrder(a.stage) - text.stageOrder(b.stage));
	const furthest = then.reduce((most, stage, i) => reached(stage) ? i : most, -1);

	return boot.state == 'booting' ? then[furthest + 1] ?? null : null;
}

/* Firmware asks for the size of a file before it loads it: of such a pair the loading is shown, each under a key of its own. */
function files(boot) {
	const files = (boot.files ?? []).map((file, key) => ({ ...file, key }));

	return files.filter((file, i) => file.outcome != 'probed' || files[i + 1]?.name != file.name);
}

/* Bytes a second of a file that was loaded; null where the time is too short to tell. */
function rate(file) {
	return file.took_ms >= 10 && file.acknowledged > 0 ? file.acknowledged * 1000 / file.took_ms : null;
}

/* Every member that this version of the page knows is optional in some version of the agent. */
function findings(boot) {
	return Array.isArray(boot.findings) ? boot.findings : [];
}

/* What was said before what: the same lines with some more behind them keep their sign. */
function consoleSign(boot) {
	return '%d %d %d'.format(boot.id, boot.console_dropped ?? 0, boot.console?.[0]?.at_ms ?? 0);
}

function consoleLine(line) {
	return '%s  %s: %s'.format(text.duration(line.at_ms), text.speaker(line.from), line.text);
}

/* The bytes of base64 (RFC 4648 §4); throws what atob throws if it is none. */
function bytes(base64) {
	return Uint8Array.from(atob(base64), character => character.charCodeAt(0));
}

function fileName(boot, end) {
	const who = (boot.device ?? boot.mac ?? 'pi').replace(/[^A-Za-z0-9_]+/g, '-');

	return 'piboot-%s-%d.%s'.format(who, boot.id, end);
}

return baseclass.extend({ end, bars, compared, next, files, rate, findings, consoleSign, consoleLine, bytes, fileName });
