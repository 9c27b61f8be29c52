'use strict';
'require view';
'require form';
'require piboot.api as api';
'require piboot.names as names';

/* LuCI's own rules are by type; ours are functions that give null or a sentence. */
function rule(check) {
	return (section, value) => value ? check(value) ?? true : true;
}

function absolute(value) {
	return value.startsWith('/') ? null : _('Give a whole path, beginning with "/".');
}

return view.extend({
	/* Without the agent there are no images to choose from, and the rest can be set all the same. */
	load() {
		return api.images().then(({ images }) => images.map(image => image.name), () => []);
	},

	render(images) {
		const map = new form.Map('piboot', _('Settings'),
			_('Changes are in force as soon as they are applied; Pis that run go on.'));
		const section = map.section(form.NamedSection, 'main', 'piboot');
		let option;

		section.addremove = false;
		section.tab('general', _('General Settings'));
		section.tab('advanced', _('Advanced Settings'));

		option = section.taboption('general', form.Flag, 'enabled', _('Enable'),
			_('When this is off, nothing runs, and the DHCP server is configured as it was before.'));
		option.rmempty = false;

		option = section.taboption('general', form.DynamicList, 'interface', _('Networks'),
			_('Networks or devices on which Pis are seen and served, and on no other.'));
		option.placeholder = 'lan';
		option.datatype = 'maxlength(15)';

		option = section.taboption('general', form.Value, 'data_dir', _('Directory'),
			_('Images, the Pis\' files and the database: a directory on the SSD, with ext4, btrfs, xfs or f2fs. Not the place where the SSD is mounted itself.'));
		option.placeholder = '/mnt/ssd/piboot';
		option.validate = rule(absolute);

		option = section.taboption('general', form.ListValue, 'unknown', _('Unknown Pis'),
			_('What to do with a Pi that nobody has enrolled.'));
		option.value('ask', _('show it on the overview'));
		option.value('ignore', _('ignore it'));
		option.value('enroll', _('enrol it by itself, with the default image'));
		option.default = 'ask';
		option.optional = false;

		option = section.taboption('general', form.Value, 'default_image', _('Default image'),
			_('For Pis that are enrolled by themselves, or on the command line without naming an image.'));
		images.forEach(name => option.value(name));
		option.validate = rule(names.imageName);

		option = section.taboption('general', form.Value, 'timezone', _('Time zone of the Pis'),
			_('As the tz database calls it. Empty: as the image has it. A change reaches each Pi with its next boot.'));
		option.placeholder = 'Europe/Berlin';
		option.validate = rule(names.timezone);

		option = section.taboption('general', form.Value, 'locale', _('Language of the Pis'),
			_('A locale that the image has. Empty: as the image has it.'));
		option.placeholder = 'de_DE.UTF-8';
		option.validate = rule(names.locale);

		option = section.taboption('general', form.Value, 'keyboard', _('Keyboards of the Pis'),
			_('Layout. Empty: as the image has it.'));
		option.placeholder = 'de';
		option.validate = rule(names.keyboard);

		option = section.taboption('advanced', form.ListValue, 'dhcp', _('Boot options'),
			_('Who tells enrolled Pis what to boot.'));
		option.value('auto', _('this router\'s DHCP server, if it is the network\'s'));
		option.value('dnsmasq', _('this router\'s DHCP server (dnsmasq)'));
		option.value('proxy', _('piboot itself, beside another DHCP server'));
		option.value('off', _('somebody else'));
		option.default = 'auto';
		option.optional = false;

		option = section.taboption('advanced', form.DynamicList, 'quirk_off', _('Leave out'),
			_('What is done for boards with known weaknesses, and is not to be done. Only for finding out whether something of it does harm.'));
		option.value('menu_spaces', _('menu_spaces: three spaces at the end of the boot menu (Pi 3B)'));
		option.value('reply_delay', _('reply_delay: an offer that comes later (Pi 3B)'));
		option.value('wake_up', _('wake_up: a few packets that nobody asked for (Pi 3B)'));
		option.value('fixed_address', _('fixed_address: an address of its own (up to Pi 3B+)'));

		option = section.taboption('advanced', form.ListValue, 'nfs', _('Root file systems'),
			_('Who serves them. With a server of your own, the directory above is mounted from it, and Pis mount from there as well.'));
		option.value('builtin', _('piboot, from this router'));
		option.value('external', _('an NFS server that is there already'));
		option.default = 'builtin';
		option.optional = false;

		option = section.taboption('advanced', form.Value, 'nfs_server', _('NFS server'),
			_('Its IPv4 address, as the Pis reach it. It has to export NFSv3 over TCP, with no_root_squash.'));
		option.datatype = 'ip4addr("nomask")';
		option.depends('nfs', 'external');
		option.rmempty = false;

		option = section.taboption('advanced', form.Value, 'nfs_path', _('Directory there'),
			_('What the directory above is called on that server.'));
		option.placeholder = '/export/piboot';
		option.validate = rule(absolute);
		option.depends('nfs', 'external');
		option.rmempty = false;

		option = section.taboption('advanced', form.Flag, 'sync', _('Wait for the disk'),
			_('Creating, renaming and removing files waits for the disk. Slow; without it a power cut of the router may undo the last seconds of that. Data that a Pi flushes is safe either way.'));

		option = section.taboption('advanced', form.Value, 'os_list', _('List of systems'),
			_('What can be imported from the internet: the address of a list as Raspberry Pi Imager reads it.'));
		option.placeholder = 'https://downloads.raspberrypi.com/os_list_imagingutility_v4.json';
		option.validate = rule(names.url);

		return map.render();
	}
});
