'use strict';
'require baseclass';

/* The tabs beside the page that is shown. */
return baseclass.extend({
	async __init__() {
		const menu = await (await fetch(L.url('admin/menu'))).json();
		const path = L.env.dispatchpath.slice(0, 3);
		const node = path.reduce((node, name) => node?.children?.[name], menu);
		const entries = Object.entries(node?.children ?? {}).sort((a, b) => a[1].order - b[1].order);
		const tabs = document.getElementById('tabmenu');

		tabs.append(...entries.map(([ name, entry ]) => E('a', { 'href': L.url(...path, name) }, [ entry.title, ' ' ])));
		tabs.style.display = '';
	}
});
