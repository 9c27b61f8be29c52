'use strict';
'require view';
'require dom';
'require ui';
'require piboot.api as api';
'require piboot.led as led';
'require piboot.page as page';
'require piboot.table as table';
'require piboot.text as text';
'require piboot.timeline as timeline';

const MOST = 50;

/* A boot that began longer ago and still has not ended hangs: nothing of it is worth a look every second. */
const LIVE_MS = 10 * 60 * 1000;

/* What of the address behind '#' names: #boot=12, #device=running_lion, or nothing. */
function wanted() {
	const [ , kind, value ] = /^#(boot|device)=(.+)$/.exec(location.hash) ?? [];

	return kind == 'boot' && /^[0-9]+$/.test(value) ? { boot: Number(value) } :
		kind == 'device' ? { device: decodeURIComponent(value) } : {};
}

function who(boot) {
	return boot.device ?? boot.mac;
}

function label(boot) {
	const { word, style } = text.bootState(boot);

	return page.label(word, style);
}

/* How long ago it began, by the router's clock where that is told. */
function age(boot) {
	return boot.age_ms ?? Math.abs(Date.now() - boot.started_ms);
}

/* Something of it may change any moment. */
function isLive(boot) {
	const comes = boot.state == 'booting' || boot.state == 'running' && boot.stages && !boot.stages.some(stage => stage.stage == 'ready');

	return comes && age(boot) < LIVE_MS;
}

function barNode(bar) {
	return E('div', { 'class': 'cbi-progressbar piboot-bar', 'style': 'margin:.4em 0;min-width:0' }, [
		E('div', { 'style': 'margin-left:%s%%;width:%s%%;min-width:3px;transition:none'.format(Math.min(bar.left, 99).toFixed(2), bar.width.toFixed(2)) })
	]);
}

function stageTable() {
	return table.create([
		{
			title: _('After'), sign: bar => '%d %s'.format(bar.at, bar.compared),
			node: bar => [ text.duration(bar.at), page.below(bar.compared) ]
		},
		{ title: _('Stage'), text: bar => bar.detail ? '%s (%s)'.format(bar.text, bar.detail) : bar.text },
		{ title: _('Took'), text: bar => bar.last && !bar.took ? '' : text.duration(bar.took) },
		{ title: _('Course'), width: '40%', sign: bar => bar.left.toFixed(2) + ' ' + bar.width.toFixed(2), node: barNode }
	], bar => bar.key, _('No stage was seen.'));
}

function fileTable() {
	return table.create([
		{ title: _('After'), text: file => text.duration(file.at_ms) },
		{ title: _('File'), text: file => file.name },
		{ title: _('Outcome'), text: file => text.outcome(file.outcome) },
		{ title: _('Loaded'), text: file => file.acknowledged || file.size ? _('%s of %s').format(text.bytes(file.acknowledged), text.bytes(file.size)) : '' },
		{ title: _('Took'), text: file => text.duration(file.took_ms) },
		{ title: _('Speed'), text: file => timeline.rate(file) === null ? '' : _('%s/s').format(text.bytes(timeline.rate(file))) },
		{ title: _('Sent again'), text: file => file.retransmissions ? String(file.retransmissions) : '' }
	], file => file.key, _('It asked for no file.'));
}

/* What happened, what to do, and how sure that is. */
function findingNode(finding) {
	const origin = [ finding.id, finding.source ].filter(part => part).join(', ');

	return E('div', { 'class': 'piboot-finding alert-message ' + (finding.severity == 'error' ? 'error' : 'warning') }, [
		E('p', {}, [ E('strong', {}, [ finding.cause ?? '' ]) ]),
		finding.todo ? E('p', {}, [ E('strong', {}, [ _('What to do:') ]), ' ', finding.todo ]) : '',
		E('p', {}, [ E('small', { 'style': 'color:inherit' }, [
			text.confidence(finding.confidence), origin ? ' (%s)'.format(origin) : '',
			finding.at_ms === undefined ? '' : '; ' + _('found after %s').format(text.duration(finding.at_ms))
		]) ])
	]);
}

function offerTable() {
	return table.create([
		{ title: _('After'), text: offer => text.duration(offer.at_ms) },
		{ title: _('DHCP server'), text: offer => offer.server ?? _('unknown') },
		{ title: _('Address'), text: offer => offer.ip ?? '–' },
		{ title: _('Boot menu'), text: offer => offer.boot_menu ? _('yes') : _('no') },
		{ title: _('TFTP server'), text: offer => offer.tftp ?? '–' }
	], offer => offer.key, _('No offer was seen.'));
}

/* Sets children only when they would be others: a selection stays. */
function renew(node, value, make) {
	const sign = JSON.stringify(value ?? null);

	if (node.sign !== sign)
		dom.content(node, make(value));

	node.sign = sign;
}

function section(title, nodes) {
	return E('div', { 'class': 'cbi-section' }, [ E('h3', {}, [ title ]), ...nodes ]);
}

function lines(list, words) {
	return E('pre', { 'style': 'white-space:pre-wrap;overflow-wrap:anywhere' }, [ list.map(words).join('\n') ]);
}

return view.extend({
	handleSaveApply: null,
	handleSave: null,
	handleReset: null,

	fetch() {
		const want = wanted();

		if (want.boot !== undefined)
			return api.boot({ boot: want.boot }).then(boot => ({ want, boot }));

		return api.boots({ device: want.device, limit: MOST }).then(({ boots }) => ({ want, boots }));
	},

	makeList() {
		this.list = table.create([
			{ title: _('Began'), text: boot => text.date(boot.started_ms) },
			{ title: _('Pi'), text: who },
			{
				title: _('State'), width: '35%', sign: boot => [ boot.state, boot.end, boot.finding, boot.severity ].join(' '),
				node: boot => [ label(boot), boot.finding ? E('div', {}, [ boot.finding ]) : '' ]
			},
			{ title: _('Last stage'), text: boot => boot.stage ? _(boot.stage) : '–' },
			{ title: _('Reached after'), text: boot => text.duration(boot.took_ms) },
			{ title: _('Loaded'), text: boot => text.bytes(boot.tftp_bytes) },
			{
				title: '', style: 'cbi-section-actions', sign: boot => boot.id,
				node: boot => page.linkButton(_('Timeline'), '#boot=%d'.format(boot.id))
			}
		], boot => '%s %d %d'.format(boot.mac, boot.started_ms, boot.id), _('No boot was seen yet.'));
		this.filter = E('p');
		this.listNode = E('div', { 'class': 'cbi-section', 'id': 'piboot-boots' }, [
			this.filter, this.list.render(), E('p', {}, [ led.button() ])
		]);
	},

	makeDetail() {
		this.head = E('h3');
		this.state = E('span');
		this.age = E('span');
		this.findings = E('div', { 'id': 'piboot-findings' });
		this.stages = stageTable();
		this.compared = E('p');
		this.files = fileTable();
		this.dropped = E('p');
		this.spared = E('p');
		this.offers = offerTable();
		this.asked = E('p');
		this.more = E('div');
		this.console = E('pre', { 'id': 'piboot-console', 'style': 'white-space:pre-wrap;overflow-wrap:anywhere;max-height:30em;overflow:auto' });
		this.consoleDropped = E('p');
		this.consoleNode = section(_('Console'), [ this.consoleDropped, this.console ]);
		this.trouble = E('div');
		this.packets = E('button', {
			'class': 'btn cbi-button cbi-button-neutral', 'style': 'display:none',
			'click': ui.createHandlerFn(this, this.downloadPackets)
		}, [ _('Download packets') ]);

		this.detailNode = E('div', { 'id': 'piboot-boot', 'style': 'display:none' }, [
			E('p', {}, [
				page.linkButton(_('All boots'), '#'), ' ',
				E('button', { 'class': 'btn cbi-button cbi-button-neutral', 'click': ui.createHandlerFn(this, this.download) }, [ _('Download as JSON') ]), ' ',
				this.packets, ' ', led.button()
			]),
			this.trouble, this.head, E('p', {}, [ this.state, this.age ]), this.findings,
			E('div', { 'class': 'cbi-section' }, [ this.stages.render(), this.compared ]),
			this.consoleNode,
			section(_('Files over TFTP'), [ this.files.render(), this.spared, this.dropped ]),
			section(_('DHCP offers'), [ this.offers.render(), this.asked ]),
			this.more
		]);

		api.may('boot_packets').then(may => { this.packets.style.display = may ? '' : 'none' });
	},

	download() {
		page.save(timeline.fileName(this.boot, 'json'), JSON.stringify(this.boot, null, 2), 'application/json');
	},

	downloadPackets() {
		const boot = this.boot;
		const say = (words) => dom.content(this.trouble, E('div', { 'class': 'alert-message notice' }, [ page.paragraph(words) ]));

		return api.bootPackets({ boot: boot.id }).then(({ pcap }) => {
			if (!pcap)
				return say(_('No packets of this boot were kept.'));

			dom.content(this.trouble, null);
			page.save(timeline.fileName(boot, 'pcap'), timeline.bytes(pcap), 'application/vnd.tcpdump.pcap');
		}).catch(error => {
			if (error.code != 'unknown_method')
				return page.complain(this.trouble, error);

			this.packets.style.display = 'none';
			say(_('This version of the agent keeps no packets.'));
		});
	},

	showList(want, boots) {
		renew(this.filter, want.device, device => device ? [
			_('Boots of %s.').format(device), ' ', E('a', { 'href': '#' }, [ _('Show all') ])
		] : []);
		this.list.update(boots);
	},

	showDetail(boot) {
		if (this.boot?.id !== boot.id)
			dom.content(this.trouble, null);

		this.boot = boot;
		this.head.textContent = _('Boot %d of %s').format(boot.id, who(boot));
		renew(this.state, [ text.bootState(boot), boot.end, boot.started_ms, boot.mac, boot.ip ], () => [
			label(boot), ' ',
			[ _('began %s').format(text.date(boot.started_ms)), boot.mac, boot.ip ].filter(part => part).join(', '), '. ', text.end(boot)
		]);
		this.age.textContent = boot.state == 'booting' && isLive(boot) ? _('Under way for %s.').format(text.span(age(boot) / 1000)) : '';
		renew(this.findings, timeline.findings(boot), list => list.map(findingNode));
		this.stages.update(timeline.bars(boot));
		/* The same file may be asked for twice in the same millisecond. */
		this.files.update(timeline.files(boot));
		this.spared.textContent = boot.spared_bytes ? _('Up to %s less to load than with the initramfs, which this kernel does not need (option trim).').format(text.bytes(boot.spared_bytes)) : '';
		this.dropped.textContent = boot.files_dropped ? _('%d more requests were not kept: it asked for too many.').format(boot.files_dropped) : '';
		this.showCompared(boot);
		this.showConsole(boot);
		this.offers.update((boot.offers ?? []).map((offer, i) => Object.assign({ key: i }, offer)));
		this.asked.textContent = boot.discovers > 1 ? _('It asked %d times.').format(boot.discovers) : '';
		renew(this.more, [ boot.quirks, boot.refusals ], ([ quirks, refusals ]) => [
			quirks?.length ? section(_('Done for this board'), [
				lines(quirks, quirk => '%s  %s (%s)'.format(text.duration(quirk.at_ms), quirk.note, quirk.quirk))
			]) : '',
			refusals?.length ? section(_('Refused'), [
				lines(refusals, refusal => '%s  %s: %s'.format(text.duration(refusal.at_ms), refusal.export, refusal.why))
			]) : ''
		]);
	},

	showCompared(boot) {
		const next = timeline.next(boot);

		renew(this.compared, [ boot.good?.id, next ], () => boot.good ? [
			_('Compared with the last boot that came to a running system:'), ' ',
			E('a', { 'href': '#boot=%d'.format(boot.good.id) }, [ _('boot %d').format(boot.good.id) ]), '. ',
			next ? _('There came next, after %s: %s.').format(text.duration(next.at_ms), text.stage(next.stage)) : ''
		] : []);
	},

	/* What is there already stays, with what is selected in it; the end stays in sight where it was. */
	showConsole(boot) {
		const said = boot.console ?? [];
		const sign = timeline.consoleSign(boot);
		const pre = this.console;
		const atEnd = pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 5;

		this.consoleNode.style.display = said.length ? '' : 'none';
		this.consoleDropped.textContent = boot.console_dropped ? _('%d lines in the middle were not kept.').format(boot.console_dropped) : '';

		/* Fewer lines: the agent was restarted, and had not stored them. */
		if (pre.sign !== sign || said.length < pre.shown) {
			pre.textContent = '';
			pre.shown = 0;
		}

		if (said.length > pre.shown) {
			pre.append(said.slice(pre.shown).map(line => timeline.consoleLine(line) + '\n').join(''));

			if (atEnd)
				pre.scrollTop = pre.scrollHeight;
		}

		pre.sign = sign;
		pre.shown = said.length;
	},

	show(data) {
		const detail = data.boot !== undefined;

		/* The address may have changed while the answer was on its way. */
		if (JSON.stringify(data.want) != JSON.stringify(wanted()))
			return;

		this.detailNode.style.display = detail ? '' : 'none';
		this.listNode.style.display = detail ? 'none' : '';

		if (detail)
			this.showDetail(data.boot);
		else
			this.showList(data.want, data.boots);
	},

	render() {
		this.makeList();
		this.makeDetail();

		const content = E('div', {}, [ this.listNode, this.detailNode ]);

		this.page = page.run({
			content,
			fetch: () => this.fetch(),
			show: data => this.show(data),
			busy: data => (data.boots ?? [ data.boot ]).some(isLive)
		});
		window.addEventListener('hashchange', () => this.page.look());

		return this.page.look().then(() => E('div', {}, [ E('h2', {}, [ _('Boots') ]), this.page.banner, content ]));
	}
});
