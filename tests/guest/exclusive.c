/* exclusive DIR ME - races with the same program on another machine, one being ME 0 and the other 1, for names in
 * DIR that only one can make: files with O_EXCL, directories, links. Writes the names that it won to DIR/won.ME.
 * DIR is mounted with lookupcache=none,noac: each sees at once what the other has made. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 100
#define PATIENCE 60

static int by_open(const char *name)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644);
	return fd == -1 ? -1 : close(fd);
}
static int by_mkdir(const char *name) { return mkdir(name, 0755); }
static int by_link(const char *name) { return link("linked", name); }

static const struct { const char *name; int (*take)(const char *); } kinds[] = {
	{ "file", by_open }, { "directory", by_mkdir }, { "link", by_link },
};

/* Says that this machine has come to `where`, and waits for the other. */
static int meet(int me, const char *where, int round)
{
	char mine[64], theirs[64];
	time_t end = time(NULL) + PATIENCE;
	snprintf(mine, sizeof mine, "here.%d.%s.%d", me, where, round);
	snprintf(theirs, sizeof theirs, "here.%d.%s.%d", !me, where, round);
	int fd = open(mine, O_WRONLY | O_CREAT, 0644);
	if (fd == -1 || close(fd)) return -1;
	while (access(theirs, F_OK)) if (time(NULL) > end) return -1;
	return 0;
}

int main(int argc, char **argv)
{
	if (argc != 3 || chdir(argv[1])) { fprintf(stderr, "usage: exclusive DIR ME\n"); return 2; }
	int me = atoi(argv[2]);
	/* Linux makes the verifier of an exclusive create from the clock tick and the process id: two machines that were
	 * started together could well agree on both, and the server would take the second for a repeat of the first. */
	for (pid_t pid; getpid() % 2 != me;) if ((pid = fork()) != 0) {
		int status = 1;
		waitpid(pid, &status, 0);
		return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
	}
	char name[64];
	FILE *won;
	snprintf(name, sizeof name, "won.%d", me);
	if (!(won = fopen(name, "w"))) { perror(name); return 1; }
	for (unsigned kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
		int wins = 0;
		for (int i = 0; i < ROUNDS; i++) {
			snprintf(name, sizeof name, "%s.%d", kinds[kind].name, i);
			if (meet(me, kinds[kind].name, i)) { printf("guest %d: nobody else came to %s\n", me, name); return 1; }
			if (kinds[kind].take(name) == 0) wins++, fprintf(won, "%s\n", name);
			else if (errno != EEXIST) { printf("guest %d: %s: %s\n", me, name, strerror(errno)); return 1; }
		}
		printf("guest %d made %d of %d: %s\n", me, wins, ROUNDS, kinds[kind].name);
	}
	return fclose(won) ? 1 : 0;
}
