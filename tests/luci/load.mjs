// Loads the pages' modules that need no browser, the way LuCI's loader does: the text is the body of a function that
// gets what its 'require' lines name, and returns a class.

import { readFileSync } from 'node:fs';

const RESOURCES = new URL('../../luci-app/htdocs/luci-static/resources/', import.meta.url);

export const untranslated = (text) => text;

// What of LuCI's String.format the modules use: %s, %d and %%.
String.prototype.format ??= function(...args) {
	return this.replace(/%(%|s|d)/g, (_, kind) => kind == '%' ? '%' : kind == 'd' ? Math.floor(Number(args.shift())) : String(args.shift()));
};

const baseclass = { extend: (members) => class { constructor(...args) { Object.assign(this, members); this.__init__?.(...args) } } };

// `given` are instances for names that are not modules of ours: rpc, dom …
export function load(name, given = {}, _ = untranslated) {
	const known = { baseclass, ...given };

	if (known[name])
		return known[name];

	const source = readFileSync(new URL(name.replaceAll('.', '/') + '.js', RESOURCES), 'utf8');
	const needs = [ ...source.matchAll(/^'require (\S+)(?: as (\S+))?';$/gm) ];
	const names = needs.map(([ , path, as ]) => as ?? path.replace(/\W/g, '_'));
	const make = new Function('_', 'L', ...names, source);

	return new (make(_, {}, ...needs.map(([ , path ]) => load(path, known, _))))();
}
