/* durable DIR MODE... - writes to DIR what a server must not lose, in one process per mode, until there is a file
 * /tmp/stop, and says on standard output (in the end also in /tmp/said) what is promised so far:
 *   fsync N    fsync.log has N lines: each batch of them was several writes, then fsync
 *   stable N   N lines were written to stable.log, each with O_SYNC in the place of the one 1024 before it (what is
 *              new in a file, the journal of ext4 brings along with anybody's fsync; this only its own write)
 *   file N     file.1 to file.N are there with a line each: created, written, fsync
 *   name N     the names of the rounds 1 to N are there, and those they removed are not; no fsync at all
 * DIR is the working directory, and the logs stay open, all the time. MODE "file?" may lose a file whose fsync has not
 * returned yet (ESTALE): a server that makes no promise about names.
 *
 * durable --check DIR SAID - is all there that a file of such lines promises? Lines of other programs do not matter.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define LINE 64
#define SLOTS 1024
#define BATCH 512 /* lines: 32 KiB are several writes of the client, which it commits, when wsize is less */

static char last[64]; /* what was said */

static void die(const char *what, long n)
{
	/* One write: the processes share a terminal. */
	char text[128];
	int length = snprintf(text, sizeof text, "ERROR %s %ld: %s\n", what, n, strerrorname_np(errno));
	(void)!write(1, text, length);
	exit(1);
}

static void say(const char *what, long n)
{
	int length = snprintf(last, sizeof last, "%s %ld\n", what, n);
	if (write(1, last, length) != length)
		die("saying", n);
	/* Nothing else is done before it is said: at most one thing more than what was said. */
	tcdrain(1);
}

static int over(void)
{
	return access("/tmp/stop", F_OK) == 0;
}

static void line(char *out, long n)
{
	memset(out, '.', LINE);
	out[sprintf(out, "%010ld", n)] = '.';
	out[LINE - 1] = '\n';
}

static void fsync_log(void)
{
	char batch[BATCH * LINE];
	int fd = open("fsync.log", O_WRONLY | O_CREAT | O_APPEND, 0644);
	for (long n = 0; !over();) {
		for (int i = 0; i < BATCH; i++)
			line(batch + i * LINE, ++n);
		if (write(fd, batch, sizeof batch) != sizeof batch || fsync(fd))
			die("fsync.log", n);
		say("fsync", n);
		usleep(20000);
	}
}

static void stable_log(void)
{
	static char all[SLOTS * LINE];
	char text[LINE];
	int fd = open("stable.log", O_WRONLY | O_CREAT | O_SYNC, 0644);
	if (write(fd, all, sizeof all) != sizeof all || fsync(fd))
		die("stable.log", 0);
	for (long n = 1; !over(); n++) {
		line(text, n);
		if (pwrite(fd, text, LINE, n % SLOTS * LINE) != LINE)
			die("stable.log", n);
		say("stable", n);
		usleep(5000);
	}
}

static int one_file(long n)
{
	char name[32], text[LINE];
	int fd;

	sprintf(name, "file.%ld", n);
	line(text, n);
	fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd == -1)
		return -1;
	if (write(fd, text, LINE) != LINE || fsync(fd)) {
		int error = errno;
		close(fd);
		errno = error;
		return -1;
	}
	return close(fd);
}

static void files(int may_lose)
{
	for (long n = 1; !over(); n++) {
		while (one_file(n)) {
			if (!may_lose || errno != ESTALE)
				die("file", n);
			if (over())
				return;
		}
		say("file", n);
		usleep(20000);
	}
}

static void names(void)
{
	char name[5][32];

	for (long n = 1; !over(); n++) {
		for (int i = 0; i < 5; i++)
			sprintf(name[i], "%c.%ld", "nrlds"[i], n);
		int fd = open(name[0], O_WRONLY | O_CREAT | O_EXCL, 0600);
		if (fd == -1 || close(fd) || chmod(name[0], 0640) || link(name[0], name[2]) || rename(name[0], name[1]) ||
		    mkdir(name[3], 0755) || symlink(name[1], name[4]))
			die("names", n);
		/* The round before the last one goes, but for its directory. */
		sprintf(name[2], "l.%ld", n - 2);
		if (n > 2 && unlink(name[2]))
			die("unlink", n);
		say("name", n);
		usleep(20000);
	}
}

static void work(const char *mode)
{
	FILE *said;

	if (!strcmp(mode, "fsync"))
		fsync_log();
	else if (!strcmp(mode, "stable"))
		stable_log();
	else if (!strcmp(mode, "name"))
		names();
	else
		files(!strcmp(mode, "file?"));
	said = fopen("/tmp/said", "a");
	if (!said || fputs(last, said) < 0 || fclose(said))
		die("/tmp/said", 0);
	exit(0);
}

static int failed;
static void check(int good, const char *what, long n)
{
	if (!good) {
		printf("LOST %s %ld (%s)\n", what, n, strerrorname_np(errno));
		failed++;
	}
	errno = 0;
}

/* The last promised line before one that is neither there nor overwritten by its successor: the very last when all is
 * well. */
static long stable_lines(long promised)
{
	char have[LINE], want[LINE];
	long n = promised < SLOTS ? 1 : promised - SLOTS + 1, found;
	int fd = open("stable.log", O_RDONLY);
	for (; n <= promised; n++) {
		if (pread(fd, have, LINE, n % SLOTS * LINE) != LINE || sscanf(have, "%ld", &found) != 1)
			break;
		line(want, found);
		if (found < n || (found - n) % SLOTS || memcmp(have, want, LINE))
			break;
	}
	close(fd);
	return n - 1;
}

static long lines_of(const char *path)
{
	char have[LINE], want[LINE];
	long n = 0;
	FILE *file = fopen(path, "r");
	while (file && fread(have, LINE, 1, file) == 1) {
		line(want, n + 1);
		if (memcmp(have, want, LINE))
			break;
		n++;
	}
	if (file)
		fclose(file);
	return n;
}

static int exists(const char *prefix, long n, mode_t type, int mode, int links)
{
	char name[32];
	struct stat s;
	sprintf(name, "%s.%ld", prefix, n);
	return lstat(name, &s) == 0 && (s.st_mode & S_IFMT) == type && (!mode || (int)(s.st_mode & 07777) == mode) &&
	       (!links || (int)s.st_nlink == links);
}

/* Of the last two rounds the links are still there; the next one may be under way. */
static void check_names(long last)
{
	for (long n = 1; n <= last; n++) {
		int linked = n == last ? 2 : n < last - 1 ? 1 : 0;
		check(exists("r", n, S_IFREG, 0640, linked), "renamed file", n);
		check(exists("d", n, S_IFDIR, 0755, 0), "directory", n);
		check(exists("s", n, S_IFLNK, 0, 0), "symbolic link", n);
		check(!exists("n", n, S_IFREG, 0, 0), "rename's removal", n);
		if (n < last - 1)
			check(!exists("l", n, S_IFREG, 0, 0), "removal", n);
	}
}

static int check_all(const char *dir, const char *said)
{
	char text[256], name[32];
	long fsynced = 0, stable = 0, file = 0, round = 0, have_fsynced, have_stable;
	FILE *in = fopen(said, "r");

	if (!in || chdir(dir)) {
		perror(said);
		return 2;
	}
	while (fgets(text, sizeof text, in)) {
		/* A line that is not complete yet could be a shorter number, which is true as well. */
		sscanf(text, "fsync %ld", &fsynced);
		sscanf(text, "stable %ld", &stable);
		sscanf(text, "file %ld", &file);
		sscanf(text, "name %ld", &round);
	}
	have_fsynced = lines_of("fsync.log");
	have_stable = stable_lines(stable);
	check(have_fsynced >= fsynced, "fsynced lines: there are only", have_fsynced);
	check(have_stable == stable, "stable lines: missing is the one after", have_stable);
	for (long n = 1; n <= file; n++) {
		sprintf(name, "file.%ld", n);
		/* Each file has its own number as its only line. */
		char have[LINE + 1] = "", want[LINE];
		int fd = open(name, O_RDONLY);
		line(want, n);
		check(read(fd, have, sizeof have) == LINE && !memcmp(have, want, LINE), "file", n);
		close(fd);
	}
	check_names(round);
	printf("promised: %ld fsynced lines (there are %ld), %ld stable ones, %ld files, %ld rounds of names: %s\n",
	       fsynced, have_fsynced, stable, file, round, failed ? "LOST" : "all there");
	return failed != 0;
}

int main(int argc, char **argv)
{
	int status = 0, result;

	if (argc == 4 && !strcmp(argv[1], "--check"))
		return check_all(argv[2], argv[3]);
	if (argc < 3 || chdir(argv[1])) {
		fprintf(stderr, "usage: durable DIR fsync|stable|file|file?|name...\n");
		return 2;
	}
	for (int i = 2; i < argc; i++)
		if (!fork())
			work(argv[i]);
	while (wait(&result) != -1)
		status |= result != 0;
	return status;
}
