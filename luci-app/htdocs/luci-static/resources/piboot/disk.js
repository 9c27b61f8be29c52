'use strict';
'require baseclass';
'require ui';
'require piboot.api as api';
'require piboot.page as page';

/* Another disk than before is in its place: to go on with it, somebody has to say so. */

function isAnother(finding) {
	return finding.id == 'another-disk';
}

function accept(finding, directory, changed) {
	const trouble = E('div');
	const submit = () => api.volumeAccept().then(() => {
		ui.hideModal();
		return changed();
	}).catch(error => page.complain(trouble, error));

	page.dialog(_('Accept this disk'), [
		page.paragraph(finding.text),
		page.paragraph(_('If you accept it, %s is used as it is from now on:').format(directory)),
		E('ul', {}, [
			E('li', {}, [ _('Every enrolled Pi gets a new root file system, made from its image. Nothing that was ever written on the Pis is in it.') ]),
			E('li', {}, [ _('Images that are not on this disk have to be imported again before that.') ]),
			E('li', {}, [ _('Pis that run now have to be switched off and on.') ]),
			E('li', {}, [ _('The disk that was used before stays as it is. With the Pis\' files on it, it is taken again without a question.') ])
		]),
		trouble
	], [
		page.closeButton(_('Cancel')),
		E('button', {
			'class': 'btn cbi-button cbi-button-negative important',
			'click': ui.createHandlerFn(this, submit)
		}, [ _('Accept this disk') ])
	]);
}

return baseclass.extend({ isAnother, accept });
