'use strict';
'require view';
'require dom';
'require ui';
'require piboot.api as api';
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

function label(state) {
	return E('span', { 'class': 'label ' + text.stateClass(state), 'style': 'margin-left:0' }, [ text.state(state) ]);
}

function barNode(bar) {
	return E('div', { 'class': 'cbi-progressbar piboot-bar', 'style': 'margin:.4em 0;min-width:0' }, [
		E('div', { 'style': 'margin-left:%s%%;width:%s%%;min-width:3px;transition:none'.format(Math.min(bar.left, 99).toFixed(2), bar.width.toFixed(2)) })
	]);
}

function stageTable() {
	return table.create([
		{ title: _('After'), text: bar => text.duration(bar.at) },
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
		{ title: _('Sent again'), text: file => file.retransmissions ? String(file.retransmissions) : '' }
	], file => file.key, _('It asked for no file.'));
}

function findingNode(finding) {
	const facts = [ finding.confidence, finding.source ].filter(part => part).map(part => String(part)).join(', ');

	return E('div', { 'class': 'alert-message ' + (finding.severity == 'error' ? 'error' : 'warning') }, [
		E('p', {}, [ E('strong', {}, [ finding.cause ?? finding.text ?? finding.id ?? '' ]), facts ? ' (%s)'.format(facts) : '' ]),
		finding.todo ? E('p', {}, [ finding.todo ]) : ''
	]);
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
			{ title: _('State'), sign: boot => boot.state, node: boot => label(boot.state) },
			{ title: _('Last stage'), text: boot => boot.stage ? _(boot.stage) : '–' },
			{ title: _('Reached after'), text: boot => text.duration(boot.took_ms) },
			{ title: _('Loaded'), text: boot => text.bytes(boot.tftp_bytes) },
			{
				title: '', style: 'cbi-section-actions', sign: boot => boot.id,
				node: boot => E('a', { 'class': 'btn cbi-button cbi-button-neutral', 'style': 'text-align:center;justify-content:center', 'href': '#boot=%d'.format(boot.id) }, [ _('Timeline') ])
			}
		], boot => '%s %d %d'.format(boot.mac, boot.started_ms, boot.id), _('No boot was seen yet.'));
		this.filter = E('p');
		this.listNode = E('div', { 'class': 'cbi-section', 'id': 'piboot-boots' }, [ this.filter, this.list.render() ]);
	},

	makeDetail() {
		this.head = E('h3');
		this.state = E('p');
		this.findings = E('div');
		this.stages = stageTable();
		this.files = fileTable();
		this.dropped = E('p');
		this.more = E('div');
		this.compared = E('div');

		this.detailNode = E('div', { 'id': 'piboot-boot', 'style': 'display:none' }, [
			E('p', {}, [
				E('a', { 'class': 'btn cbi-button cbi-button-neutral', 'style': 'text-align:center;justify-content:center', 'href': '#' }, [ _('All boots') ]), ' ',
				E('button', { 'class': 'btn cbi-button cbi-button-neutral', 'click': ui.createHandlerFn(this, this.download) }, [ _('Download as JSON') ])
			]),
			this.head, this.state, this.findings,
			E('div', { 'class': 'cbi-section' }, [ this.stages.render(), this.compared ]),
			section(_('Files over TFTP'), [ this.files.render(), this.dropped ]),
			this.more
		]);
	},

	download() {
		const boot = this.boot;
		const url = URL.createObjectURL(new Blob([ JSON.stringify(boot, null, 2) ], { type: 'application/json' }));
		const link = E('a', { 'href': url, 'download': timeline.fileName(boot) });

		document.body.appendChild(link);
		link.click();
		link.remove();
		window.setTimeout(() => URL.revokeObjectURL(url), 1000);
	},

	showList(want, boots) {
		renew(this.filter, want.device, device => device ? [
			_('Boots of %s.').format(device), ' ', E('a', { 'href': '#' }, [ _('Show all') ])
		] : []);
		this.list.update(boots);
	},

	showDetail(boot) {
		this.boot = boot;
		this.head.textContent = _('Boot %d of %s').format(boot.id, who(boot));
		renew(this.state, [ boot.state, boot.started_ms, boot.mac, boot.ip ], () => [
			label(boot.state), ' ',
			[ _('began %s').format(text.date(boot.started_ms)), boot.mac, boot.ip ].filter(part => part).join(', ')
		]);
		renew(this.findings, timeline.findings(boot), list => list.map(findingNode));
		this.stages.update(timeline.bars(boot));
		/* The same file may be asked for twice in the same millisecond. */
		this.files.update((boot.files ?? []).map((file, i) => Object.assign({ key: i }, file)));
		this.dropped.textContent = boot.files_dropped ? _('%d more requests were not kept: it asked for too many.').format(boot.files_dropped) : '';
		renew(this.compared, boot.compared, compared => compared ? section(_('Compared with its other boots'), [
			lines(Object.entries(compared), ([ name, value ]) => '%s: %s'.format(name, typeof value == 'object' ? JSON.stringify(value) : value))
		]) : []);
		renew(this.more, [ boot.quirks, boot.console ], ([ quirks, console_ ]) => [
			quirks?.length ? section(_('Peculiarities of this board'), [ lines(quirks, quirk => '%s  %s'.format(text.duration(quirk.at_ms), quirk.text ?? quirk.quirk)) ]) : '',
			console_?.length ? section(_('Console'), [ lines(console_, line => '%s  %s'.format(text.duration(line.at_ms), line.text)) ]) : ''
		]);
	},

	show(data) {
		const detail = data.boot !== undefined;

		/* The address may have changed while the answer was on its way. */
		if (JSON.stringify(data.want) != JSON.stringify(wanted()))
			return;

		if (detail)
			this.showDetail(data.boot);
		else
			this.showList(data.want, data.boots);

		this.detailNode.style.display = detail ? '' : 'none';
		this.listNode.style.display = detail ? 'none' : '';
	},

	render() {
		this.makeList();
		this.makeDetail();

		const content = E('div', {}, [ this.listNode, this.detailNode ]);

		this.page = page.run({
			content,
			fetch: () => this.fetch(),
			show: data => this.show(data),
			busy: data => (data.boots ?? [ data.boot ]).some(boot => boot.state == 'booting' && Math.abs(Date.now() - boot.started_ms) < LIVE_MS)
		});
		window.addEventListener('hashchange', () => this.page.look());

		return this.page.look().then(() => E('div', {}, [ E('h2', {}, [ _('Boots') ]), this.page.banner, content ]));
	}
});
