'use strict';
'require baseclass';
'require rpc';

const callGet = rpc.declare({ object: 'uci', method: 'get', params: [ 'config' ], expect: { values: {} }, reject: true });
const callSet = rpc.declare({ object: 'uci', method: 'set', params: [ 'config', 'section', 'values' ], reject: true });
const callDelete = rpc.declare({ object: 'uci', method: 'delete', params: [ 'config', 'section', 'options' ], reject: true });

const loaded = {};

return baseclass.extend({
	load(config) {
		return loaded[config] ??= callGet(config).then(values => loaded[config] = values).catch(error => {
			delete loaded[config];
			throw error;
		});
	},

	get(config, section, option) {
		return loaded[config]?.[section]?.[option];
	},

	async save(config, section, values) {
		const gone = Object.keys(values).filter(option => values[option] === null && this.get(config, section, option) !== undefined);
		const set = Object.fromEntries(Object.entries(values).filter(([ , value ]) => value !== null));

		await callSet(config, section, set);

		if (gone.length)
			await callDelete(config, section, gone);
	}
});
