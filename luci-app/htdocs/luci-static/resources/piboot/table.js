'use strict';
'require baseclass';
'require dom';

/*
 * A table whose rows are changed in place: a poll must not take away focus, a selection, or what is unfolded.
 *
 * Columns: { title, text(item) } for text, { title, sign(item), node(item, current) } for anything else, which is made
 * anew only when its sign changes; `current()` is the item as it is by then. `style` is a class, `width` of the column. Text comes from the network: it only ever
 * becomes text nodes (E() takes a lone string for HTML, so strings are always in a list).
 */

const Table = baseclass.extend({
	__init__(columns, key, empty) {
		this.columns = columns;
		this.key = key;
		this.rows = new Map();
		this.none = E('tr', { 'class': 'tr placeholder' }, [
			E('td', { 'class': 'td', 'colspan': columns.length }, [ E('em', {}, [ empty ]) ])
		]);
		this.body = E('table', { 'class': 'table cbi-section-table' }, [
			E('tr', { 'class': 'tr table-titles' }, columns.map(column =>
				E('th', { 'class': 'th ' + (column.style ?? ''), 'width': column.width ?? null }, [ column.title ]))),
			this.none
		]);
	},

	render() {
		return this.body;
	},

	/* Makes the table show exactly these items, in this order. Rows move only when they must: moving takes focus away. */
	update(items) {
		const wanted = new Set(items.map(item => String(this.key(item))));
		const focus = this.body.contains(document.activeElement) ? document.activeElement : null;
		let before = this.none;

		for (const [ key, row ] of this.rows) {
			if (!wanted.has(key)) {
				row.node.remove();
				this.rows.delete(key);
			}
		}

		for (const item of items) {
			const key = String(this.key(item));
			let row = this.rows.get(key);

			if (!row)
				this.rows.set(key, row = this.makeRow(key));

			row.item = item;
			row.cells.forEach(cell => this.fill(row, cell));
			this.place(row.node, before);
			before = row.node;
		}

		this.none.style.display = items.length ? 'none' : '';

		if (focus?.isConnected && document.activeElement !== focus)
			focus.focus({ preventScroll: true });
	},

	place(node, before) {
		const there = before.nextSibling;

		if (there === node)
			return;

		/* The one in the way went down; the rest is in order. */
		if (there && there.nextSibling === node)
			this.body.appendChild(there);
		else
			this.body.insertBefore(node, there);
	},

	makeRow(key) {
		const cells = this.columns.map(column => ({
			column,
			node: E('td', { 'class': 'td ' + (column.style ?? ''), 'data-title': column.title || null })
		}));

		return {
			cells,
			item: null,
			node: E('tr', { 'class': 'tr cbi-section-table-row', 'data-key': key }, cells.map(cell => cell.node))
		};
	},

	fill(row, cell) {
		const column = cell.column;
		const sign = column.text ? String(column.text(row.item) ?? '') : String(column.sign(row.item));

		if (cell.sign === sign)
			return;

		cell.sign = sign;

		/* On a phone a cell is a line of its own. */
		cell.node.classList.toggle('hide-xs', column.text !== undefined && sign === '');

		if (column.text)
			cell.node.textContent = sign;
		else
			dom.content(cell.node, column.node(row.item, () => row.item));
	}
});

/* Columns, a function that gives an item its key, and what to say when there are no items. */
function create(columns, key, empty) {
	return new Table(columns, key, empty);
}

return baseclass.extend({ create });
