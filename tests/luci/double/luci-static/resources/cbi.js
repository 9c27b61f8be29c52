'use strict';

/*
 * A double of the part of LuCI's client that the pages of piboot use, for tests: the same names, arguments and traps
 * (a lone string for E() is HTML; errors of ubus arrive as answers unless `reject` is set), and nothing else. Run the
 * tests with LUCI=/path/to/luci to see whether it still is one.
 */

window._ = (text) => window.TR?.[text] ?? text;
window.N_ = (n, one, many) => window._(n == 1 ? one : many);

String.prototype.format = function(...args) {
	return this.replace(/%(%|s|d)/g, (_, kind) =>
		kind == '%' ? '%' : kind == 'd' ? String(Math.trunc(Number(args.shift())) || 0) : String(args.shift() ?? ''));
};
