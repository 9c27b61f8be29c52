/* nfsmount SERVER:EXPORT DIRECTORY OPTIONS - one mount(2) call and nothing before it: no portmapper queries, no
 * retries, no defaults but the address that the kernel wants. What is tested is the server, not mount.nfs.
 * Prints the error's name and exits with its number. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

int main(int argc, char **argv)
{
	char data[4096];
	const char *colon;

	if (argc != 4 || !(colon = strrchr(argv[1], ':')) || colon == argv[1]) {
		fprintf(stderr, "usage: nfsmount SERVER:EXPORT DIRECTORY OPTIONS\n");
		return 255;
	}
	/* An export's path has no colon; the server's IPv6 address may have several. */
	if (snprintf(data, sizeof data, "addr=%.*s,%s", (int)(colon - argv[1]), argv[1], argv[3]) >= (int)sizeof data) {
		fprintf(stderr, "nfsmount: options too long\n");
		return 255;
	}
	if (mount(argv[1], argv[2], "nfs", 0, data) == 0)
		return 0;
	fprintf(stderr, "nfsmount: %s with %s: %s (%s)\n", argv[1], data, strerrorname_np(errno), strerror(errno));
	return errno;
}
