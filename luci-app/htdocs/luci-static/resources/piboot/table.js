'use strict';
'require baseclass';
'require dom';

/*
 * A table whose rows are changed in place: a poll must not take away focus, a selection, or what is unfolded.
 *
 * Columns: { title, text(item) } for text, { title, sign(item), node(item, current) } for anything else, which is made
 * anew only when its sign changes; `current()` is the item as it is by then. Text comes from the network: it only ever
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
				E('th', { 'class': 'th ' + (column.style ?? '') }, [ column.title ]))),
			this.none
		]);
	},

	render() {
		return this.body;
	},

	/* Makes the table show exactly these items, in this order. */
	update(items) {
		const gone = new Set(this.rows.keys());
		let before = this.none;

		for (const item of items) {
			const key = String(this.key(item));
			let row = this.rows.get(key);

			gone.delete(key);

			if (!row)
				this.rows.set(key, row = this.makeRow(key));

			row.item = item;
			row.cells.forEach(cell => this.fill(row, cell));

			if (before.nextSibling !== row.node)
				this.body.insertBefore(row.node, before.nextSibling);

			before = row.node;
		}

		for (const key of gone) {
			this.rows.get(key).node.remove();
			this.rows.delete(key);
		}

		this.none.style.display = items.length ? 'none' : '';
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
