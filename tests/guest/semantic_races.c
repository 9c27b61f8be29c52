/* What several processes of one client do at once: append, race for a name, list a directory while others change it. */
#include "semantic.h"
#include <sched.h>

#define ROUNDS 200
#define STABLE 20000
#define PASSING 200000

/* Shared between the processes. */
static struct {
	int arrived, round, passing, stop;
	int won[ROUNDS];
} *common;

/* Runs f(0) to f(n - 1) in a process each, started together; whether all returned 0. */
static int together(int n, int (*f)(int))
{
	int gate[2], status, ok = 1;
	char c;
	fflush(stdout);
	if (pipe(gate)) return 0;
	for (int p = 0; p < n; p++) if (fork() == 0) {
		close(gate[1]);
		if (read(gate[0], &c, 1) != 0) _exit(99);
		_exit(f(p));
	}
	close(gate[0]), close(gate[1]);
	for (int p = 0; p < n; p++) ok &= wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
	return ok;
}

/* Returns when all n processes are in their next round. */
static void rendezvous(int n)
{
	int round = __atomic_load_n(&common->round, __ATOMIC_SEQ_CST);
	if (__atomic_add_fetch(&common->arrived, 1, __ATOMIC_SEQ_CST) == n) {
		__atomic_store_n(&common->arrived, 0, __ATOMIC_SEQ_CST);
		__atomic_add_fetch(&common->round, 1, __ATOMIC_SEQ_CST);
	}
	while (__atomic_load_n(&common->round, __ATOMIC_SEQ_CST) == round) sched_yield();
}

/* Record i of process p: a head, a body of some length over a page at times, an end. */
static int record(char *b, int p, int i)
{
	int head = sprintf(b, "<%d %03d ", p, i), body = (i * 997 + p * 131) % 6000;
	memset(b + head, 'a' + (i + p) % 26, body);
	b[head + body] = '>';
	return head + body + 1;
}

static int append(int p)
{
	char b[6100];
	int fd = open("log", O_WRONLY | O_CREAT | O_APPEND, 0644);
	for (int i = 0; i < 300; i++) {
		int n = record(b, p, i);
		if (write(fd, b, n) != n) return 1;
	}
	return close(fd) ? 2 : 0;
}

/* Whether the log holds every record, whole, and those of each process in their order. */
static int log_is_whole(void)
{
	char wanted[2][6100], got[6100];
	int next[2] = { 0, 0 }, length[2];
	FILE *log = fopen("log", "r");
	while (log && next[0] + next[1] < 600) {
		int p, c;
		for (p = 0; p < 2; p++) length[p] = next[p] < 300 ? record(wanted[p], p, next[p]) : 0;
		if (getc(log) != '<' || ((c = getc(log)) != '0' && c != '1')) break;
		p = c - '0';
		if (!length[p] || fread(got, 1, length[p] - 2, log) != (size_t)length[p] - 2 || memcmp(got, wanted[p] + 2, length[p] - 2)) break;
		next[p]++;
	}
	int whole = log && next[0] == 300 && next[1] == 300 && getc(log) == EOF;
	if (!whole) printf("the log goes wrong after %d and %d records\n", next[0], next[1]);
	if (log) fclose(log);
	return whole;
}

static int by_open(const char *name)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644);
	return fd == -1 ? -1 : close(fd);
}
static int by_mkdir(const char *name) { return mkdir(name, 0755); }
static int by_link(const char *name) { return link("f", name); }
static int by_symlink(const char *name) { return symlink("f", name); }

static int (*take)(const char *);
static int race(int p)
{
	char name[32];
	(void)p;
	for (int i = 0; i < ROUNDS; i++) {
		sprintf(name, "race/%d", i);
		rendezvous(4);
		if (take(name) == 0) __atomic_add_fetch(&common->won[i], 1, __ATOMIC_SEQ_CST);
		else if (errno != EEXIST) return 1;
	}
	return 0;
}

/* Four processes want the same name, again and again. */
static int one_wins_each(int (*by)(const char *))
{
	int won_once = 0;
	memset(common, 0, sizeof *common);
	take = by;
	if (mkdir("race", 0755) || !together(4, race)) return 0;
	for (int i = 0; i < ROUNDS; i++) won_once += common->won[i] == 1;
	return won_once == ROUNDS && system("rm -rf race") == 0;
}

/* Comes and goes in the directory that is listed, each time under another name. */
static int pass_by(int p)
{
	char name[64];
	int i, oldest = 0;
	for (i = 0; i < PASSING && !__atomic_load_n(&common->stop, __ATOMIC_SEQ_CST); i++) {
		sprintf(name, "crowd/passing %d %d", p, i);
		if (symlink("x", name)) return 1;
		__atomic_add_fetch(&common->passing, 1, __ATOMIC_SEQ_CST);
		if (i - oldest < 100) continue;
		sprintf(name, "crowd/passing %d %d", p, oldest++);
		if (unlink(name)) return 2;
	}
	while (oldest < i) {
		sprintf(name, "crowd/passing %d %d", p, oldest++);
		if (unlink(name)) return 3;
	}
	return 0;
}

/* One listing: every entry that stays exactly once, no other twice, and others did come meanwhile. */
static int list_crowd(void)
{
	static char stays[STABLE], passes[2][PASSING];
	int n, p, all = 0, twice = 0, before = __atomic_load_n(&common->passing, __ATOMIC_SEQ_CST);
	memset(stays, 0, sizeof stays), memset(passes, 0, sizeof passes);
	DIR *d = opendir("crowd");
	for (struct dirent *e; d && (e = readdir(d));) {
		if (sscanf(e->d_name, "stays %d", &n) == 1) all++, twice += stays[n]++;
		else if (sscanf(e->d_name, "passing %d %d", &p, &n) == 2) twice += passes[p][n]++;
	}
	if (d) closedir(d);
	int came = __atomic_load_n(&common->passing, __ATOMIC_SEQ_CST) - before;
	if (all != STABLE || twice || !came) printf("listed %d, %d more than once, %d came meanwhile\n", all, twice, came);
	return all == STABLE && !twice && came;
}

static int list_or_pass(int p)
{
	if (p < 2) return pass_by(p);
	int ok = 1;
	for (int i = 0; i < 3; i++) {
		drop_caches();
		ok &= list_crowd();
	}
	__atomic_store_n(&common->stop, 1, __ATOMIC_SEQ_CST);
	return ok ? 0 : 1;
}

void races(void)
{
	common = mmap(NULL, sizeof *common, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK("O_APPEND from two processes", together(2, append));
	CHECK("no record is lost or torn", log_is_whole());
	drop_caches();
	CHECK("on the server neither", log_is_whole());
	CHECK("O_EXCL: one of four wins", one_wins_each(by_open));
	CHECK("mkdir: one of four wins", one_wins_each(by_mkdir));
	CHECK("link: one of four wins", one_wins_each(by_link));
	CHECK("symlink: one of four wins", one_wins_each(by_symlink));

	char name[32];
	int ok = mkdir("crowd", 0755) == 0;
	for (int i = 0; i < STABLE && ok; i++) sprintf(name, "crowd/stays %d", i), ok = symlink("x", name) == 0;
	CHECK("20000 entries", ok);
	memset(common, 0, sizeof *common);
	CHECK("each is listed once while others come and go", together(3, list_or_pass));
	for (int i = 0; i < STABLE && ok; i++) sprintf(name, "crowd/stays %d", i), ok = unlink(name) == 0;
	CHECK("and nothing else is left", ok && rmdir("crowd") == 0);
}
