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
			left: share(stage.at_ms),
			width: share(until - stage.at_ms)
		};
	});
}

/* Every member that this version of the page knows is optional in some version of the agent. */
function findings(boot) {
	return Array.isArray(boot.findings) ? boot.findings : [];
}

function fileName(boot) {
	const who = (boot.device ?? boot.mac ?? 'pi').replace(/[^A-Za-z0-9_]+/g, '-');

	return 'piboot-%s-%d.json'.format(who, boot.id);
}

return baseclass.extend({ end, bars, findings, fileName });
