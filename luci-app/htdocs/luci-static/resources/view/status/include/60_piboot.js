'use strict';
'require baseclass';
'require piboot.api as api';

function line(label, words) {
	return E('tr', { 'class': 'tr' }, [
		E('td', { 'class': 'td left', 'width': '33%' }, [ label ]),
		E('td', { 'class': 'td left' }, [ words ])
	]);
}

return baseclass.extend({
	title: _('Pi Boot'),

	/* On a router where it is switched off there is nothing to say. */
	load() {
		return api.devices().catch(error => ({ error }));
	},

	render(seen) {
		/* What was shown once stays until something else is: then it must say that it is over. */
		if (seen.error)
			return this.shown ? E('table', { 'class': 'table' }, [ line(_('Agent'), seen.error.message) ]) : null;

		this.shown = true;

		const count = (state) => String(seen.devices.filter(pi => pi.state == state).length);

		return E('table', { 'class': 'table' }, [
			line(_('Pis running'), count('running')),
			line(_('Pis booting'), count('booting')),
			line(_('Pis stuck'), count('stuck')),
			line(_('Pis waiting to be enrolled'), String(seen.pending.length))
		]);
	}
});
