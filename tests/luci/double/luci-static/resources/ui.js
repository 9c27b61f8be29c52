'use strict';
'require baseclass';
'require dom';

const modal = E('div', { 'id': 'modal_overlay' }, [ E('div', { 'class': 'modal' }) ]);

document.body.append(modal);

return baseclass.extend({
	instantiateView(path) {
		return L.require('view.' + path.replaceAll('/', '.'));
	},

	/* The children stay in the document after it was hidden, as LuCI's do. */
	showModal(title, children) {
		const box = modal.firstElementChild;

		dom.content(box, E('h4', {}, title));
		dom.append(box, children);
		document.body.classList.add('modal-overlay-active');

		return box;
	},

	hideModal() {
		document.body.classList.remove('modal-overlay-active');
	},

	createHandlerFn(context, run) {
		return (event) => {
			const button = event.currentTarget;

			button.disabled = true;
			Promise.resolve(run.call(context, event)).finally(() => { button.disabled = false });
		};
	}
});
