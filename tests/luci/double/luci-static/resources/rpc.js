'use strict';
'require baseclass';

let number = 1;

/* Whether the session is known at all is asked only when something was denied. */
async function denied() {
	const answer = await post({ object: 'session', method: 'access' }, { scope: 'uci', object: 'luci', 'function': 'read' });

	if (!answer.error)
		return;

	L.ui.showModal('Session expired', [ E('p', {}, [ 'A new login is required since the authentication session expired.' ]) ]);
	throw Object.assign(new Error('Login session is expired'), { name: 'SessionError' });
}

async function post(options, params) {
	const answer = await fetch(L.env.ubuspath, {
		method: 'POST',
		body: JSON.stringify({ jsonrpc: '2.0', id: number++, method: 'call', params: [ L.env.sessionid, options.object, options.method, params ] })
	}).catch(() => { throw new Error('XHR request aborted by browser') });

	return answer.json();
}

function declare(options) {
	return async (...args) => {
		const params = Object.fromEntries((options.params ?? []).map((name, i) => [ name, args[i] ]));
		const answer = await post(options, params);

		if (answer.error?.code == -32002)
			await denied();

		if (answer.error)
			throw new Error('RPC call to %s/%s failed with error %s: %s'.format(options.object, options.method, answer.error.code, answer.error.message));

		if (options.reject && answer.result[0] !== 0)
			throw new Error('RPC call to %s/%s failed with ubus code %d'.format(options.object, options.method, answer.result[0]));

		const said = answer.result.length > 1 ? answer.result[1] : answer.result[0];
		const [ wanted ] = Object.entries(options.expect ?? {});

		return wanted ? said?.[wanted[0]] ?? wanted[1] : said;
	};
}

return baseclass.extend({ declare });
