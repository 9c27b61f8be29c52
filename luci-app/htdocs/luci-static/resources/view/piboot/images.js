'use strict';
'require view';
'require dom';
'require ui';
'require piboot.api as api';
'require piboot.names as names';
'require piboot.page as page';
'require piboot.sources as sources';
'require piboot.table as table';
'require piboot.text as text';
'require piboot.upload as upload';

/* Jobs that ended are shown as long as anybody may wonder what came of them. */
const REMEMBERED_MS = 3600 * 1000;

function isOfImages(job, now) {
	return (job.kind == 'import' || job.kind == 'examine' || job.kind == 'delete') &&
		(!text.jobIsOver(job) || (job.state == 'failed' || job.state == 'interrupted') && now - job.finished_ms < REMEMBERED_MS);
}

return view.extend({
	handleSaveApply: null,
	handleSave: null,
	handleReset: null,

	fetch() {
		return Promise.all([ api.images(), api.jobs() ]).then(([ { images }, { jobs } ]) => ({ images, jobs }));
	},

	makeTable() {
		const columns = [
			{ title: _('Name'), text: image => image.name },
			{ title: _('System'), text: image => image.os ?? _('unknown') },
			{ title: _('Architecture'), text: image => image.architecture ?? _('unknown') },
			{ title: _('Size'), text: image => text.bytes(image.root_bytes + image.boot_bytes) },
			{ title: _('On the disk'), text: image => image.used_bytes == null ? '–' : text.bytes(image.used_bytes) },
			{ title: _('Runs on'), text: image => text.boots(image.fits) },
			{ title: _('From'), text: image => '%s, %s'.format(image.source, text.date(image.imported_at)) },
			{ title: _('Used by'), text: image => text.list(image.used_by, 8) || '–' }
		];

		if (page.mayWrite())
			columns.push({
				title: '', style: 'cbi-section-actions', sign: () => '',
				node: (image, current) => E('button', {
					'class': 'btn cbi-button cbi-button-remove',
					'click': ui.createHandlerFn(this, () => this.remove(current()))
				}, [ _('Remove') ])
			});

		return table.create(columns, image => image.name, _('There is no image yet.'));
	},

	remove(image) {
		const trouble = E('div');
		const submit = () => api.imageRemove({ name: image.name }).then(() => {
			ui.hideModal();
			return this.page.look();
		}).catch(error => page.complain(trouble, error));

		page.dialog(_('Remove image %s').format(image.name), [
			image.used_by.length ? page.paragraph(_('Made from it: %s. They keep their copies; those that have none yet need the image.').format(text.list(image.used_by, 8))) : '',
			page.paragraph(_('%s will be free.').format(text.bytes(image.root_bytes + image.boot_bytes))),
			trouble
		], [
			page.closeButton(_('Cancel')),
			E('button', {
				'class': 'btn cbi-button cbi-button-negative important',
				'click': ui.createHandlerFn(this, submit)
			}, [ _('Remove') ])
		]);
	},

	makeImport() {
		const trouble = E('div');
		const name = page.field(_('Name'),
			E('input', { 'type': 'text', 'id': 'piboot-name', 'class': 'cbi-input-text', 'maxlength': 63, 'spellcheck': 'false' }),
			_('What the image is called from now on.'),
			names.imageName);
		let own = false; /* the name was typed, not proposed */
		let source = null;

		const propose = () => {
			if (!own && source !== null)
				name.input.value = names.imageProposal(source.proposal());
		};

		source = sources.create(propose);
		name.input.addEventListener('input', () => { own = name.input.value != '' });

		const begun = () => {
			dom.content(trouble, null);
			source.clear();
			name.input.value = '';
			own = false;
			return this.page.look();
		};

		const submit = () => {
			/* All that is wrong is shown at once. */
			if ([ source.verify(), name.verify() ].includes(false))
				return;

			const request = source.request();

			if (request.file)
				return this.send(request.file, name.input.value).then(begun).catch(error => page.complain(trouble, error));

			return api.imageImport(Object.assign({ name: name.input.value }, request)).then(begun)
				.catch(error => page.complain(trouble, error));
		};

		return E('div', { 'class': 'cbi-section', 'id': 'piboot-import' }, [
			E('h3', {}, [ _('Import an image') ]),
			source.node, name.row, trouble,
			E('div', { 'class': 'cbi-value' }, [
				E('label', { 'class': 'cbi-value-title' }),
				E('div', { 'class': 'cbi-value-field' }, [
					E('button', {
						'class': 'btn cbi-button cbi-button-positive important',
						'click': ui.createHandlerFn(this, submit)
					}, [ _('Import') ])
				])
			])
		]);
	},

	/* Sends a file. The promise ends when the agent takes it, or does not; what goes wrong later is shown by the bar. */
	send(file, name) {
		const stay = event => event.preventDefault();
		const bar = page.sendBar(_('Upload of "%s"').format(file.name), () => {
			sending.cancel();
			return sending.job === null ? null : this.cancel({ id: sending.job });
		});
		let taken = null;
		const begun = new Promise(resolve => { taken = resolve });
		const sending = upload.create(file, name, () => {
			bar.update(sending.state());

			if (sending.job !== null) {
				this.sending.add(sending.job);
				taken();
			}
		});

		this.jobs.appendChild(bar.node);
		window.addEventListener('beforeunload', stay);

		const ended = sending.run().finally(() => {
			window.removeEventListener('beforeunload', stay);
			bar.node.remove();
			this.sending.delete(sending.job);
			this.page.look();
		});

		/* Once there is a job, that says more: it was cancelled, or what came is no image. */
		ended.catch(error => sending.job === null || error.code == 'cancelled' ? null : page.complain(this.trouble, error));

		return Promise.race([ begun, ended ]);
	},

	/* Running ones first seen stay where they are; one bar a job. */
	showJobs(jobs) {
		const now = Date.now();
		const shown = jobs.filter(job => !this.sending.has(job.id) && (isOfImages(job, now) || this.bars.has(job.id)));

		for (const job of shown) {
			if (!this.bars.has(job.id)) {
				const bar = page.jobBar(page.mayWrite() ? job => this.cancel(job) : null);

				this.bars.set(job.id, bar);
				this.jobs.appendChild(bar.node);
			}

			this.bars.get(job.id).update(job);
		}
	},

	cancel(job) {
		return api.jobCancel({ job: job.id }).then(() => this.page.look()).catch(error => page.complain(this.trouble, error));
	},

	show(data) {
		this.table.update(data.images);
		this.showJobs(data.jobs);
	},

	render() {
		this.bars = new Map();
		this.sending = new Set(); /* jobs whose bar is that of an upload */
		this.trouble = E('div');
		this.jobs = E('div', { 'id': 'piboot-jobs' });
		this.table = this.makeTable();

		const content = E('div', {}, [
			E('div', { 'class': 'cbi-section', 'id': 'piboot-images' }, [ this.table.render(), this.trouble, this.jobs ]),
			page.mayWrite() ? this.makeImport() : ''
		]);

		this.page = page.run({
			content,
			fetch: () => this.fetch(),
			show: data => this.show(data),
			busy: data => data.jobs.some(job => !text.jobIsOver(job))
		});

		return this.page.look().then(() => E('div', {}, [ E('h2', {}, [ _('Images') ]), this.page.banner, content ]));
	}
});
