// The texts of the pages, for translators.
//
//   node tests/luci/translations.mjs           writes luci-app/po/templates/piboot.pot
//   node tests/luci/translations.mjs check     says whether it is up to date, and what each language lacks

import { readFileSync, readdirSync, writeFileSync } from 'node:fs';

const APP = new URL('../../luci-app/', import.meta.url);
const POT = 'po/templates/piboot.pot';

const read = (path) => readFileSync(new URL(path, APP), 'utf8');
const files = (folder, end) => readdirSync(new URL(folder, APP), { withFileTypes: true }).flatMap(entry =>
	entry.isDirectory() ? files(`${folder}${entry.name}/`, end) : entry.name.endsWith(end) ? [ folder + entry.name ] : []).sort();

// LuCI looks texts up with their white space made one blank each, and trimmed.
const collapse = (text) => text.replace(/\s+/g, ' ').trim();
const quote = (text) => '"' + text.replace(/["\\]/g, '\\$&') + '"';

function texts() {
	const found = new Map();
	const note = (text, path, source, index) => {
		const places = found.get(collapse(text)) ?? [];

		places.push(`${path}:${source.slice(0, index).split('\n').length}`);
		found.set(collapse(text), places);
	};

	for (const path of files('htdocs/', '.js')) {
		const source = read(path);

		for (const match of source.matchAll(/\b_\(\s*'((?:[^'\\]|\\.)*)'/g))
			note(match[1].replace(/\\(.)/g, '$1'), path, source, match.index);

		for (const match of source.matchAll(/\b_\((?!\s*')([^)]*)\)/g))
			if (!/^(device\.)?boot\.stage$/.test(match[1]))
				throw new Error(`${path}: _(${match[1]}) has no text that could be translated`);
	}

	for (const path of files('root/', '.json')) {
		const source = read(path);

		for (const match of source.matchAll(/"(?:title|description)": ("(?:[^"\\]|\\.)*")/g))
			note(JSON.parse(match[1]), path, source, match.index);
	}

	return found;
}

function template(found) {
	const entries = [ ...found ].sort(([ a ], [ b ]) => a < b ? -1 : 1).map(([ text, places ]) =>
		places.map(place => `#: ${place}\n`).join('') + `msgid ${quote(text)}\nmsgstr ""\n`);

	return [ 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8"\n', ...entries ].join('\n');
}

// Entries of one line each, as the template has them.
function translations(path) {
	return new Map([ ...read(path).matchAll(/^msgid (".*")\nmsgstr (".*")$/gm) ].map(([ , id, text ]) => [ JSON.parse(id), JSON.parse(text) ]));
}

const marks = (text) => (text.match(/%[sd%]/g) ?? []).join(' ');

function complaints() {
	const found = texts();
	const wrong = read(POT).replace(/^#:.*\n/gm, '') === template(found).replace(/^#:.*\n/gm, '') ? [] :
		[ `${POT} is not up to date: run node tests/luci/translations.mjs` ];

	for (const path of files('po/', '.po')) {
		const known = translations(path);

		for (const text of found.keys()) {
			if (!known.get(text))
				wrong.push(`${path} lacks ${quote(text)}`);
			else if (marks(known.get(text)) != marks(text))
				wrong.push(`${path}: ${quote(known.get(text))} has other marks than ${quote(text)}`);
		}

		for (const text of known.keys())
			if (text && !found.has(text))
				wrong.push(`${path} has ${quote(text)}, which no page says`);
	}

	return wrong;
}

if (process.argv[2] == 'check') {
	const wrong = complaints();

	wrong.forEach(line => console.error(line));
	process.exitCode = wrong.length ? 1 : 0;
}
else {
	writeFileSync(new URL(POT, APP), template(texts()));
}
