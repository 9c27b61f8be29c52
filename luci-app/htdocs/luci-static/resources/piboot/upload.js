'use strict';
'require baseclass';

/*
 * Sends a file of this computer to /cgi-bin/piboot-upload, piece by piece: uhttpd ends a CGI after a minute, and what
 * broke off is sent again. A piece is as long as can be sent in a few seconds.
 */

const LEAST = 64 * 1024, FIRST = 1024 * 1024, MOST = 4 * 1024 * 1024;
/* uhttpd of before October 2022 may refuse (413) a body whose length is a multiple of its buffer's. */
const BUFFER = 4096;
/* A piece that takes less or more than this (ms) is followed by a longer or shorter one. */
const QUICK = 2000, SLOW = 8000;
/* Pauses (ms) before a piece is sent again; it is given up after the last. */
const PAUSES = [ 500, 1000, 2000, 5000, 10000, 20000, 30000 ];
/* The CGI answers within a minute, or not at all. */
const PATIENCE = 75000;

function problem(code, message) {
	return Object.assign(new Error(message), { code });
}

/* The session is in a header: that is what only a page of this router can send. */
function post(query, body, begun, progress) {
	return new Promise((resolve, reject) => {
		const request = new XMLHttpRequest();
		const base = L.env.cgi_base ?? L.env.scriptname.replace(/\/[^/]+$/, '');

		request.open('POST', base + '/piboot-upload?' + new URLSearchParams(query));
		request.timeout = PATIENCE;
		request.setRequestHeader('Authorization', 'Bearer ' + L.env.sessionid);
		request.setRequestHeader('Content-Type', 'application/octet-stream');
		request.upload.addEventListener('progress', event => progress(event.loaded));
		request.addEventListener('abort', () => reject(problem('cancelled', _('The upload was cancelled.'))));

		for (const kind of [ 'error', 'timeout' ])
			request.addEventListener(kind, () => reject(problem('again', _('The router cannot be reached: check the connection.'))));

		request.addEventListener('load', () => {
			let answer = null;

			try { answer = JSON.parse(request.responseText) }
			catch (e) { /* uhttpd's own pages are no JSON */ }

			if (request.status == 200 && answer && !answer.error)
				resolve(answer);
			else
				reject(refusal(request.status, answer?.error));
		});

		begun(request);
		request.send(body);
	});
}

function refusal(status, error) {
	switch (status) {
	case 403:
		return problem('denied', _('This login may not import images, or the session has expired: log in again.'));

	case 404:
		return problem('failed', _('The web server has no /cgi-bin/piboot-upload: install luci-app-piboot again.'));

	case 413:
	case 502:
	case 504:
		return problem('again', _('The web server gave up waiting.'));
	}

	if (error?.code == 'absent')
		return problem('absent', error.message);

	return problem(error?.code ?? 'failed', error?.message ?? _('The web server answered with status %d.').format(status));
}

const Upload = baseclass.extend({
	/* `changed()` is called whenever there is something new to show. `give` replaces what only a browser has. */
	__init__(file, name, changed, give) {
		this.file = file;
		this.name = name;
		this.changed = changed;
		this.post = give?.post ?? post;
		this.now = give?.now ?? (() => performance.now());
		this.sleep = give?.sleep ?? (ms => new Promise(resolve => window.setTimeout(resolve, ms)));
		this.job = null;
		this.request = null;
		this.cancelled = false;
		/* Bytes that the agent has, and those on their way. */
		this.received = this.sent = 0;
		this.waits = null;
	},

	/* Sends everything; the promise gives the job's number, and fails with what went wrong. */
	run() {
		const query = { name: this.name, file: this.file.name, size: this.file.size };

		this.begun = this.now();

		return this.ask(query, null).then(({ job }) => {
			this.job = job;
			this.changed();

			return this.pieces(FIRST, 0);
		}).then(() => this.job);
	},

	/* Every wait and every refusal is followed by a question where to go on. */
	async pieces(length, failures) {
		while (this.received < this.file.size) {
			const most = Math.min(length, this.file.size - this.received);
			const end = this.received + (most % BUFFER == 0 ? most - 1 : most);
			const begun = this.now();

			try {
				await this.piece(end);

				const took = this.now() - begun;

				failures = 0;
				length = took < QUICK ? Math.min(2 * length, MOST) : took > SLOW ? Math.max(Math.floor(length / 2), LEAST) : length;
			}
			catch (error) {
				if (error.code != 'again' || failures >= PAUSES.length)
					throw error;

				this.waits = error.message;
				this.changed();
				await this.sleep(PAUSES[failures++]);
				length = Math.max(Math.floor(length / 2), LEAST);
			}
		}
	},

	async piece(end) {
		const from = this.received;
		/* After a failure nobody knows how much of the piece arrived. */
		const body = this.waits === null ? this.file.slice(from, end) : null;
		const { received } = await this.ask({ job: this.job, offset: from }, body);

		this.waits = null;
		this.received = this.sent = received;
		this.changed();
	},

	ask(query, body) {
		const from = this.received;

		if (this.cancelled)
			return Promise.reject(problem('cancelled', _('The upload was cancelled.')));

		return this.post(query, body, request => { this.request = request }, loaded => {
			this.sent = from + loaded;
			this.changed();
		});
	},

	cancel() {
		this.cancelled = true;
		this.request?.abort?.();
	},

	/* What there is to show: bytes, bytes in all, bytes a second, seconds left; null where nobody knows. */
	state() {
		const seconds = (this.now() - this.begun) / 1000;
		const rate = seconds > 1 && this.sent > 0 ? this.sent / seconds : null;

		return {
			sent: this.sent, total: this.file.size, rate, waits: this.waits,
			left: rate ? (this.file.size - this.sent) / rate : null
		};
	}
});

function create(file, name, changed, give) {
	return new Upload(file, name, changed, give);
}

return baseclass.extend({ create, refusal });
