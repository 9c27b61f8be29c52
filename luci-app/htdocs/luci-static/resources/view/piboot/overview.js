'use strict';
'require view';
'require dom';
'require ui';
'require piboot.api as api';
'require piboot.device as device';
'require piboot.disk as disk';
'require piboot.enrol as enrol';
'require piboot.led as led';
'require piboot.page as page';
'require piboot.snapshots as snapshots';
'require piboot.table as table';
'require piboot.text as text';

function findingKey(finding) {
	return [ finding.severity, finding.place, finding.text, finding.id ].join(' ');
}

/* Label, and what is said of it. */
const STATUS = [
	[ _('Agent'), s => _('version %s, up for %s').format(s.version, text.span(s.uptime_s)) ],
	[ _('Boot options'), s => s.dhcp ],
	[ _('Server address'), s => s.server ?? _('none: no interface that Pis are served on has an IPv4 address') ],
	[ _('Storage'), s => s.storage.total_bytes ?
		_('%s of %s free in %s (%s)').format(text.bytes(s.storage.free_bytes), text.bytes(s.storage.total_bytes), s.storage.data_dir, s.storage.file_system ?? '?') :
		_('%s is not there').format(s.storage.data_dir) ],
	[ _('TFTP'), s => s.tftp.serving ?
		_('%d transfers under way, %d since the start, %s sent').format(s.tftp.active, s.tftp.transfers, text.bytes(s.tftp.bytes)) :
		_('not served') ],
	[ _('NFS'), s => s.nfs.serving ?
		_('%d connections, %d requests since the start').format(s.nfs.connections, s.nfs.requests) :
		s.nfs.external ? _('on %s').format(s.nfs.external) : _('not served') ]
];

function statusTable() {
	const cells = STATUS.map(() => E('td', { 'class': 'td left' }));

	return {
		node: E('table', { 'class': 'table' }, STATUS.map(([ label ], i) =>
			E('tr', { 'class': 'tr' }, [ E('td', { 'class': 'td left', 'width': '33%' }, [ label ]), cells[i] ]))),
		update: (status) => STATUS.forEach(([ , words ], i) => {
			const line = words(status);

			if (cells[i].textContent !== line)
				cells[i].textContent = line;
		})
	};
}

function stateLine(device, jobs) {
	const job = jobs.find(job => job.id === device.job);

	if (device.state == 'preparing' && job)
		return text.jobLine(job);

	if (device.state == 'booting' && device.boot)
		return [ _(device.boot.stage), device.why ].filter(part => part).join('. ');

	return device.why ?? (device.state == 'lost' ? text.end(device.boot) : '');
}

/* What the agent makes of a Pi that waits; older agents say nothing of it. */
function outlook(pi) {
	return [ pi.waits_for, pi.next ].filter(part => part).join('; ');
}

function lastSeen(pi, now) {
	const seen = text.ago(pi.last_seen_ms, now);

	return pi.asked > 1 ? _('%s, asked %d times').format(seen, pi.asked) : seen;
}

/* A link to the boots' page; `what` is what it takes behind '#'. */
function boots(words, what) {
	return page.linkButton(words, L.url('admin/services/piboot/boots') + '#' + what);
}

function lastBoot(device, now) {
	if (!device.boot)
		return _('never seen');

	return text.ago(device.boot.started_ms, now);
}

return view.extend({
	handleSaveApply: null,
	handleSave: null,
	handleReset: null,

	fetch() {
		return Promise.all([ api.status(), api.devices(), api.jobs() ]).then(([ status, seen, { jobs } ]) => ({
			status, jobs, devices: seen.devices, pending: seen.pending
		}));
	},

	button(label, style, action) {
		return E('button', { 'class': 'btn cbi-button ' + style, 'click': ui.createHandlerFn(this, action) }, [ label ]);
	},

	makePending() {
		const columns = [
			{
				title: _('Board'), sign: pi => [ pi.board, pi.sure ].join(' '),
				node: pi => E('div', { 'title': pi.sure ?? null }, [ pi.board, page.below(pi.sure) ])
			},
			{ title: _('Serial'), text: pi => pi.serial ?? _('not shown yet') },
			{ title: _('MAC address'), text: pi => pi.mac },
			{ title: _('What it does'), width: '30%', text: outlook },
			{ title: _('First seen'), text: pi => text.ago(pi.first_seen_ms, this.now) },
			{ title: _('Last seen'), text: pi => lastSeen(pi, this.now) }
		];

		if (page.mayWrite())
			columns.push({
				title: '', style: 'cbi-section-actions', sign: () => '',
				node: (pi, current) => E('div', {}, [
					this.button(_('Enrol'), 'cbi-button-positive', () => enrol.enrol(current(), this.taken, this))
				])
			});

		return table.create(columns, pi => pi.mac,
			_('No Pi waits. Switch one on that is set to boot from the network: it shows up here when it asks for an address.'));
	},

	makeDevices() {
		const others = (pi) => this.known.filter(other => other.id != pi.id).flatMap(other => [ other.id, other.hostname ]);
		const actions = (pi, current) => E('div', { 'style': 'flex-wrap:wrap;row-gap:.3em;min-width:19em' }, [].concat(...[
			boots(_('Boots'), 'device=' + encodeURIComponent(pi.id)),
			this.button(_('Details'), 'cbi-button-neutral', () => device.details(current())),
			this.button(_('Snapshots'), 'cbi-button-neutral', () => snapshots.open(current(), this))
		].concat(page.mayWrite() ? [
			this.button(_('Edit'), 'cbi-button-edit', () => device.edit(current(), others(current()), this)),
			this.button(_('New root'), 'cbi-button-action', () => device.replaceRoot(current(), this)),
			this.button(_('Unenrol'), 'cbi-button-remove', () => enrol.unenrol(current(), this))
		] : []).map(button => [ button, ' ' ])));

		return table.create([
			{ title: _('Host name'), text: pi => pi.hostname },
			{ title: _('Board'), text: pi => [ pi.board ?? _('not seen yet'), pi.mac ?? pi.serial ].join(', ') },
			{ title: _('Image'), text: pi => pi.ephemeral ? _('%s, ephemeral').format(pi.image) : pi.image },
			{ title: _('On the disk'), text: text.taken },
			{ title: _('Address'), text: pi => pi.ip ?? '–' },
			{
				title: _('State'), width: '22%', sign: pi => [ pi.state, stateLine(pi, this.jobs), pi.boot?.id ].join(' '),
				node: pi => [
					page.label(text.state(pi.state), text.stateClass(pi.state)), ' ', stateLine(pi, this.jobs),
					pi.state == 'stuck' && pi.boot ? E('div', { 'style': 'margin-top:.5em' }, [ boots(_('What to do'), 'boot=%d'.format(pi.boot.id)), ' ', led.button(_('Green LED')) ]) : ''
				]
			},
			{ title: _('Last boot'), text: pi => lastBoot(pi, this.now) },
			{ title: '', style: 'cbi-section-actions', sign: pi => pi.id, node: actions }
		], pi => pi.id, _('No Pi is enrolled yet.'));
	},

	findingNode(finding, directory) {
		const acceptable = page.mayWrite() && disk.isAnother(finding);

		return E('div', { 'class': 'alert-message ' + (finding.severity == 'error' ? 'error' : 'warning') }, [
			E('p', {}, [ E('strong', {}, [ finding.place ]), ' ', finding.text ]),
			acceptable ? E('p', {}, [
				this.button(_('Accept this disk'), 'cbi-button-negative', () => disk.accept(finding, directory, this.changed))
			]) : ''
		]);
	},

	/* A look at everything, the Pis' files too: more than the agent does by itself. */
	checkAll() {
		const wait = E('p', { 'class': 'spinning' }, [ _('Looking at everything…') ]);

		page.dialog(_('What could stop a boot'), [ wait ], [ page.closeButton() ]);

		return api.check().then(({ findings }) => wait.replaceWith(E('div', { 'id': 'piboot-check' }, findings.length ?
			findings.map(finding => this.findingNode(finding, this.directory)) :
			[ page.paragraph(_('Nothing stands in the way of a boot.')) ]))
		).catch(error => page.complain(wait.parentNode.insertBefore(E('div'), wait), error).then(() => wait.remove()));
	},

	/* The order is the agent's: worst first. */
	showFindings(status) {
		const findings = status.findings ?? [];
		const sign = findings.map(findingKey).join('\n');

		if (this.findings.sign !== sign)
			dom.content(this.findings, findings.map(finding => this.findingNode(finding, status.storage.data_dir)));

		this.findings.sign = sign;
	},

	/* Has `fn` called with the jobs of every look, until it returns false. */
	follow(fn) {
		this.followers.push(fn);
		fn(this.jobs);
	},

	show(data) {
		this.now = Date.now();
		this.jobs = data.jobs;
		this.known = data.devices;
		this.taken = data.devices.flatMap(pi => [ pi.id, pi.hostname ]);

		this.directory = data.status.storage.data_dir;
		this.status.update(data.status);
		this.showFindings(data.status);
		/* The longest waiting first: those that ask again must not jump under the mouse. */
		this.pending.update(data.pending.slice().sort((a, b) => a.first_seen_ms - b.first_seen_ms || (a.mac < b.mac ? -1 : 1)));
		this.devices.update(data.devices);
		this.followers = this.followers.filter(fn => fn(this.jobs) !== false);
	},

	render() {
		this.followers = [];
		this.jobs = [];
		this.known = [];
		this.taken = [];
		this.now = Date.now();
		this.status = statusTable();
		this.findings = E('div');
		this.pending = this.makePending();
		this.devices = this.makeDevices();

		const content = E('div', {}, [
			E('div', { 'class': 'cbi-section' }, [
				this.findings, this.status.node,
				E('div', { 'class': 'right' }, [ this.button(_('Check everything'), 'cbi-button-neutral', () => this.checkAll()) ])
			]),
			E('div', { 'class': 'cbi-section', 'id': 'piboot-pending' }, [
				E('h3', {}, [ _('Waiting to be enrolled') ]), this.pending.render()
			]),
			E('div', { 'class': 'cbi-section', 'id': 'piboot-devices' }, [
				E('h3', {}, [ _('Your Pis') ]), this.devices.render()
			])
		]);

		this.page = page.run({
			content,
			fetch: () => this.fetch(),
			show: data => this.show(data),
			busy: data => data.status.jobs > 0 || data.devices.some(pi => pi.state == 'booting' || pi.state == 'preparing')
		});
		this.changed = () => this.page.look();

		return this.page.look().then(() => E('div', {}, [ E('h2', {}, [ _('Pi Boot') ]), this.page.banner, content ]));
	}
});
