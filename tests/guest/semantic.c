/* semantic DIR - does DIR, an NFS mount, behave like a local disk? Runs as root, makes and removes DIR/semantic.
 * One line per failed check, then "semantic: PASSED of TOTAL"; status 0 if all passed. The checks on users need no
 * entries in /etc/passwd. */
#include "semantic.h"

int passed, total;

struct stat st(const char *path)
{
	struct stat s;
	memset(&s, 0, sizeof s);
	if (lstat(path, &s) == -1) s.st_nlink = 0;
	return s;
}

int put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd == -1) return 0;
	int ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	return close(fd) == 0 && ok;
}

int holds(const char *path, const char *text)
{
	char b[256];
	int fd = open(path, O_RDONLY);
	if (fd == -1) return 0;
	ssize_t n = read(fd, b, sizeof b);
	close(fd);
	return n == (ssize_t)strlen(text) && !memcmp(b, text, n);
}

/* Runs f as this user; its value is the exit status. */
int as_user(uid_t uid, gid_t gid, gid_t more, int (*f)(void))
{
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		if (setgroups(more ? 1 : 0, &more) || setgid(gid) || setuid(uid)) _exit(99);
		_exit(f());
	}
	int status;
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 98;
}

void drop_caches(void)
{
	sync();
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
	if (fd != -1) { if (write(fd, "3", 1) != 1) perror("drop_caches"); close(fd); }
}

static void files_and_links(void)
{
	CHECK("create and write", put("f", "hello"));
	CHECK("read back", holds("f", "hello"));
	CHECK("link", link("f", "f2") == 0);
	CHECK("both have two links", st("f").st_nlink == 2 && st("f2").st_nlink == 2);
	CHECK("and one inode", st("f").st_ino == st("f2").st_ino);
	CHECK("unlink leaves one", unlink("f2") == 0 && st("f").st_nlink == 1);
	char other[16];
	int linked = mkdir("links", 0755) == 0;
	for (int i = 0; i < 99; i++) sprintf(other, "links/%d", i), linked = linked && link("f", other) == 0;
	drop_caches();
	CHECK("a hundred links", linked && st("f").st_nlink == 100 && st("links/98").st_nlink == 100);
	for (int i = 0; i < 98; i++) sprintf(other, "links/%d", i), linked = linked && unlink(other) == 0;
	CHECK("two of them are left", linked && st("f").st_nlink == 2 && unlink("links/98") == 0 && st("f").st_nlink == 1);
	CHECK("no hard link to a directory", mkdir("d", 0755) == 0 && FAILS(EPERM, link("d", "d2")));
	CHECK("symlink", symlink("f", "l") == 0 && holds("l", "hello"));
	CHECK("hard link to a symlink", link("l", "l2") == 0 && S_ISLNK(st("l2").st_mode) && st("l2").st_nlink == 2);

	char name[256], target[4096], back[4096];
	memset(name, 'n', 255), name[255] = 0;
	CHECK("255-byte name", put(name, "long") && holds(name, "long") && unlink(name) == 0);
	char too_long[257];
	memset(too_long, 'n', 256), too_long[256] = 0;
	CHECK("256-byte name", FAILS(ENAMETOOLONG, open(too_long, O_CREAT | O_WRONLY, 0644)));
	memset(target, 't', 4095), target[4095] = 0;
	CHECK("4095-byte symlink", symlink(target, "longlink") == 0);
	drop_caches();
	CHECK("read it", readlink("longlink", back, sizeof back) == 4095 && !memcmp(back, target, 4095));

	int found = 0;
	CHECK("name that is not UTF-8", put("\xff\xfe\x80 x", "bytes") && holds("\xff\xfe\x80 x", "bytes"));
	DIR *dir = opendir(".");
	for (struct dirent *e; dir && (e = readdir(dir));) found |= !strcmp(e->d_name, "\xff\xfe\x80 x");
	if (dir) closedir(dir);
	CHECK("readdir gives it back", found);
	found = 0;
	memset(name, 0xff, 255);
	CHECK("255 bytes that are not UTF-8", put(name, "both") && holds(name, "both"));
	drop_caches();
	dir = opendir(".");
	for (struct dirent *e; dir && (e = readdir(dir));) found |= !strcmp(e->d_name, name);
	if (dir) closedir(dir);
	CHECK("readdir gives them back", found && holds(name, "both") && unlink(name) == 0);
}

static void nodes(void)
{
	CHECK("FIFO", mkfifo("p", 0600) == 0 && S_ISFIFO(st("p").st_mode));
	CHECK("character device", mknod("null", S_IFCHR | 0666, makedev(1, 3)) == 0 && st("null").st_rdev == makedev(1, 3));
	fflush(stdout);
	pid_t writer = fork();
	if (writer == 0) {
		int out = open("p", O_WRONLY);
		_exit(write(out, "through", 7) == 7 ? 0 : 1);
	}
	CHECK("through the FIFO", holds("p", "through") && waitpid(writer, NULL, 0) == writer);
	int fd = open("null", O_WRONLY);
	CHECK("write to it", fd != -1 && write(fd, "x", 1) == 1);
	close(fd);
	CHECK("block device", mknod("blk", S_IFBLK | 0600, makedev(259, 300000)) == 0
		&& S_ISBLK(st("blk").st_mode) && st("blk").st_rdev == makedev(259, 300000));
	struct sockaddr_un a = { .sun_family = AF_UNIX, .sun_path = "sock" };
	int s = socket(AF_UNIX, SOCK_STREAM, 0), c = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK("socket", bind(s, (void *)&a, sizeof a) == 0 && listen(s, 1) == 0 && S_ISSOCK(st("sock").st_mode));
	CHECK("connect to it", connect(c, (void *)&a, sizeof a) == 0);
	close(s), close(c);
}

static void attributes(void)
{
	put("a", "x");
	CHECK("chmod 04755", chmod("a", 04755) == 0 && (st("a").st_mode & 07777) == 04755);
	CHECK("chown", chown("a", 1000, 2000) == 0 && st("a").st_uid == 1000 && st("a").st_gid == 2000);
	CHECK("chown cleared setuid", (st("a").st_mode & 07777) == 0755);
	CHECK("uid 4294967290", chown("a", 4294967290u, 4294967291u) == 0 && st("a").st_uid == 4294967290u && st("a").st_gid == 4294967291u);
	CHECK("lchown", lchown("l", 1000, 1000) == 0 && st("l").st_uid == 1000 && st("f").st_uid == 0);
	struct timespec t[2] = { { 1000000000, 123456789 }, { 1100000000, 987654321 } };
	CHECK("utimensat to the nanosecond", utimensat(AT_FDCWD, "a", t, 0) == 0
		&& st("a").st_mtim.tv_sec == 1100000000 && st("a").st_mtim.tv_nsec == 987654321 && st("a").st_atim.tv_nsec == 123456789);
	CHECK("of a symlink", utimensat(AT_FDCWD, "l", t, AT_SYMLINK_NOFOLLOW) == 0 && st("l").st_mtim.tv_sec == 1100000000
		&& st("f").st_mtim.tv_sec != 1100000000);
	CHECK("of a FIFO", utimensat(AT_FDCWD, "p", t, 0) == 0 && st("p").st_mtim.tv_sec == 1100000000);
	t[1].tv_sec = 4000000000;
	CHECK("year 2096", utimensat(AT_FDCWD, "a", t, 0) == 0 && st("a").st_mtim.tv_sec == 4000000000);
	struct timespec omit[2] = { { 5, UTIME_OMIT }, { 7, 0 } };
	CHECK("UTIME_OMIT", utimensat(AT_FDCWD, "a", omit, 0) == 0 && st("a").st_mtim.tv_sec == 7 && st("a").st_atim.tv_sec == 1000000000);
	struct statfs fs;
	CHECK("statfs", statfs(".", &fs) == 0 && fs.f_blocks > 0 && fs.f_bavail > 0 && fs.f_files > 0 && fs.f_namelen == 255);
	mkdir("sg", 0755);
	CHECK("setgid directory", chown("sg", 0, 2000) == 0 && chmod("sg", 02775) == 0 && mkdir("sg/sub", 0755) == 0
		&& put("sg/file", "x") && st("sg/file").st_gid == 2000 && st("sg/sub").st_gid == 2000 && (st("sg/sub").st_mode & S_ISGID));
}

static void contents(void)
{
	int fd = open("sparse", O_RDWR | O_CREAT, 0644);
	char c = 0;
	CHECK("5 GiB sparse", pwrite(fd, "end", 3, 5ll << 30) == 3 && fsync(fd) == 0 && st("sparse").st_size == (5ll << 30) + 3
		&& st("sparse").st_blocks < 1000);
	drop_caches();
	CHECK("holes read as zeros", pread(fd, &c, 1, 1ll << 30) == 1 && c == 0 && pread(fd, &c, 1, 5ll << 30) == 1 && c == 'e');
	CHECK("truncate down and up", ftruncate(fd, 10) == 0 && ftruncate(fd, 20) == 0 && st("sparse").st_size == 20);
	close(fd);

	fd = open("x", O_WRONLY | O_CREAT | O_EXCL, 0640);
	CHECK("O_EXCL", fd != -1);
	CHECK("O_EXCL again", FAILS(EEXIST, open("x", O_WRONLY | O_CREAT | O_EXCL, 0640)));
	time_t now = time(NULL);
	CHECK("sane mode and time after it", (st("x").st_mode & 07777) == 0640 && llabs(st("x").st_mtime - now) < 86400);
	close(fd);

	fd = open("map", O_RDWR | O_CREAT, 0644);
	CHECK("ftruncate for a map", ftruncate(fd, 8192) == 0);
	char *m = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK("shared mmap", m != MAP_FAILED);
	if (m != MAP_FAILED) { memcpy(m + 5000, "mapped", 6); msync(m, 8192, MS_SYNC); munmap(m, 8192); }
	close(fd);
	drop_caches();
	char b[6];
	fd = open("map", O_RDONLY);
	CHECK("what was mapped is there", pread(fd, b, 6, 5000) == 6 && !memcmp(b, "mapped", 6));
	close(fd);
	fd = open("map", O_RDWR);
	m = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK("a map sees what is written", m != MAP_FAILED && pwrite(fd, "WRITE", 5, 4094) == 5 && !memcmp(m + 4094, "WRITE", 5));
	if (m != MAP_FAILED) memcpy(m + 100, "closed", 6);
	close(fd);
	if (m != MAP_FAILED) munmap(m, 8192);
	drop_caches();
	fd = open("map", O_RDONLY);
	CHECK("without msync as well", pread(fd, b, 6, 100) == 6 && !memcmp(b, "closed", 6));
	m = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK("a private map", m != MAP_FAILED && !memcmp(m + 4094, "WRITE", 5) && memcpy(m, "mine", 4) && munmap(m, 8192) == 0);
	CHECK("stays private", pread(fd, b, 4, 0) == 4 && !memcmp(b, "\0\0\0\0", 4));
	close(fd);

	fd = open("lock", O_RDWR | O_CREAT, 0644);
	struct flock l = { .l_type = F_WRLCK };
	CHECK("flock", flock(fd, LOCK_EX) == 0 && flock(fd, LOCK_UN) == 0);
	CHECK("fcntl lock", fcntl(fd, F_SETLK, &l) == 0);
	close(fd);
	CHECK("O_TMPFILE is refused, not botched", FAILS(EOPNOTSUPP, open(".", O_TMPFILE | O_RDWR, 0600)));
	/* Many times a megabyte, so that large READs and WRITEs are used. */
	size_t big = 9 << 20;
	unsigned *w = malloc(big), *r = malloc(big);
	for (size_t i = 0; i < big / 4; i++) w[i] = i * 2654435761u;
	fd = open("big", O_RDWR | O_CREAT, 0644);
	CHECK("9 MB out", pwrite(fd, w, big - 3, 1) == (ssize_t)big - 3 && fsync(fd) == 0);
	close(fd);
	drop_caches();
	fd = open("big", O_RDONLY);
	CHECK("9 MB back", pread(fd, r, big, 1) == (ssize_t)big - 3 && !memcmp(w, r, big - 3));
	close(fd);
	free(w), free(r);
}

static int count(const char *dir, int with_nfs)
{
	int n = 0;
	DIR *d = opendir(dir);
	if (!d) return -1;
	for (struct dirent *e; (e = readdir(d));) n += !with_nfs || !strncmp(e->d_name, ".nfs", 4);
	closedir(d);
	return n;
}

static void names(void)
{
	put("old", "old"), put("new", "new");
	int fd = open("old", O_RDONLY);
	char b[4];
	CHECK("rename over an open file", rename("new", "old") == 0 && holds("old", "new"));
	CHECK("under a name that the client made up", count(".", 1) == 1);
	CHECK("it can still be read", pread(fd, b, 3, 0) == 3 && !memcmp(b, "old", 3));
	close(fd);
	CHECK("which is gone with it", count(".", 1) == 0);
	fd = open("gone", O_RDWR | O_CREAT, 0600);
	CHECK("unlink an open file", unlink("gone") == 0 && FAILS(ENOENT, access("gone", F_OK)));
	CHECK("it is still there", count(".", 1) == 1);
	CHECK("write and read it", pwrite(fd, "abc", 3, 0) == 3 && fsync(fd) == 0 && pread(fd, b, 3, 0) == 3);
	close(fd);
	CHECK("no .nfs file is left", count(".", 1) == 0);
	mkdir("d/inner", 0755);
	CHECK("rmdir of a full directory", FAILS(ENOTEMPTY, rmdir("d")));
	mkdir("e", 0755);
	CHECK("rename a directory elsewhere", rename("d/inner", "e/moved") == 0 && st("e/moved").st_nlink >= 2 && st("d/inner").st_nlink == 0);
	CHECK("not into itself", FAILS(EINVAL, rename("e", "e/moved/e")));
	CHECK("rename over a full directory", mkdir("e2", 0755) == 0 && rename("e", "e2") == 0 && mkdir("e", 0755) == 0 && FAILS(ENOTEMPTY, rename("e", "e2")));

	/* A directory that is made again under the same name is another one, though the inode number may be the same. */
	int again = mkdir("again", 0755) == 0 && chdir("again") == 0 && rmdir("../again") == 0 && mkdir("../again", 0755) == 0;
	CHECK("the old directory stays gone", again && FAILS(ENOENT, open("f", O_CREAT | O_WRONLY, 0644)));
	CHECK("the new one works", chdir("..") == 0 && put("again/f", "x"));

	char path[300];
	int ok = mkdir("many", 0755) == 0;
	for (int i = 0; i < 2000 && ok; i++) {
		snprintf(path, sizeof path, "many/%0200d", i);
		ok = put(path, "");
	}
	CHECK("2000 long names", ok);
	drop_caches();
	CHECK("readdir gives 2002", count("many", 0) == 2002);
	DIR *d = opendir("many");
	int removed = 0;
	for (struct dirent *e; d && (e = readdir(d));)
		if (e->d_name[0] != '.') removed += unlinkat(dirfd(d), e->d_name, 0) == 0;
	if (d) closedir(d);
	CHECK("remove while reading", removed == 2000 && rmdir("many") == 0);
}

static int u_owner(void)
{
	struct stat s;
	if (!put("u/f", "mine") || stat("u/f", &s) || s.st_uid != 1000 || s.st_gid != 1000) return 1;
	if (mkdir("u/d", 0700) || stat("u/d", &s) || s.st_uid != 1000) return 2;
	if (symlink("f", "u/l") || lstat("u/l", &s) || s.st_uid != 1000) return 3;
	if (mkfifo("u/p", 0600) || stat("u/p", &s) || s.st_uid != 1000) return 4;
	return 0;
}
static int u_own_0444(void)
{
	int fd = open("u/ro", O_WRONLY | O_CREAT | O_EXCL, 0444);
	if (fd == -1) return 1;
	if (write(fd, "text", 4) != 4 || fsync(fd) || close(fd)) return 2;
	return holds("u/ro", "text") ? 0 : 3;
}
static int u_root_0600(void) { return FAILS(EACCES, open("secret", O_RDONLY)) ? 0 : 1; }
static int u_root_0644(void) { return FAILS(EACCES, open("public", O_WRONLY)) && holds("public", "public") ? 0 : 1; }
static int u_root_dir(void) { return FAILS(EACCES, open("rootdir/new", O_CREAT | O_WRONLY, 0644)) ? 0 : 1; }
static int u_sticky(void) { return FAILS(EPERM, unlink("sticky/root")) || errno == EACCES ? 0 : 1; }
static int u_chown(void) { return FAILS(EPERM, chown("u/f", 0, 0)) && FAILS(EPERM, chmod("public", 0777)) ? 0 : 1; }
static int u_mknod(void) { return FAILS(EPERM, mknod("u/dev", S_IFCHR | 0600, makedev(1, 3))) ? 0 : 1; }
static int u_group(void) { return holds("group", "group") && put("group", "other") ? 0 : 1; }
static int u_no_group(void) { return FAILS(EACCES, open("group", O_RDONLY)) ? 0 : 1; }
static int u_exec(void)
{
	execl("./true0111", "true", "exit", NULL);
	return 1;
}
static int u_read_0111(void) { return FAILS(EACCES, open("true0111", O_RDONLY)) ? 0 : 1; }
static int u_write_setuid(void)
{
	int fd = open("setuid", O_WRONLY);
	return fd != -1 && write(fd, "x", 1) == 1 && close(fd) == 0 ? 0 : 1;
}
static int u_access(void)
{
	if (access("public", R_OK) || access("u", R_OK | W_OK | X_OK)) return 1;
	return FAILS(EACCES, access("public", W_OK)) && FAILS(EACCES, access("secret", R_OK)) && FAILS(EACCES, access("f", X_OK)) ? 0 : 1;
}

static int u_high(void)
{
	struct stat s;
	if (!put("high/f", "mine") || chmod("high/f", 0600) || stat("high/f", &s)) return 1;
	if (s.st_uid != 4294967290u || s.st_gid != 4294967291u || !holds("high/f", "mine")) return 2;
	return FAILS(EACCES, open("u/f", O_WRONLY)) && FAILS(EACCES, open("secret", O_RDONLY)) ? 0 : 3;
}
static int u_high_file(void) { return FAILS(EACCES, open("high/f", O_RDONLY)) ? 0 : 1; }

static void users(const char *self)
{
	mkdir("u", 0755), chown("u", 1000, 1000);
	mkdir("sticky", 01777), chmod("sticky", 01777), put("sticky/root", "x");
	mkdir("rootdir", 0755);
	put("secret", "secret"), chmod("secret", 0600);
	put("public", "public"), chmod("public", 0644);
	put("group", "group"), chown("group", 0, 2000), chmod("group", 0660);
	put("setuid", "xyz"), chmod("setuid", 06777);
	char b[65536];
	int in = open(self, O_RDONLY), out = open("true0111", O_WRONLY | O_CREAT, 0755);
	for (ssize_t n; (n = read(in, b, sizeof b)) > 0;) if (write(out, b, n) != n) perror("true0111");
	close(in), close(out), chmod("true0111", 0111);
	CHECK("a user owns what it makes", as_user(1000, 1000, 0, u_owner) == 0);
	CHECK("a user writes its new 0444 file", as_user(1000, 1000, 0, u_own_0444) == 0);
	mkdir("high", 0755), chown("high", 4294967290u, 4294967291u);
	CHECK("so does user 4294967290", as_user(4294967290u, 4294967291u, 0, u_high) == 0);
	CHECK("its 0600 is for nobody else", as_user(1000, 1000, 0, u_high_file) == 0);
	CHECK("not root's 0600", as_user(1000, 1000, 0, u_root_0600) == 0);
	CHECK("root's 0644 for reading only", as_user(1000, 1000, 0, u_root_0644) == 0);
	CHECK("nothing new in root's directory", as_user(1000, 1000, 0, u_root_dir) == 0);
	CHECK("sticky", as_user(1000, 1000, 0, u_sticky) == 0);
	CHECK("no chown, no chmod of others' files", as_user(1000, 1000, 0, u_chown) == 0);
	CHECK("no mknod", as_user(1000, 1000, 0, u_mknod) == 0);
	CHECK("without the group: no", as_user(1000, 1000, 0, u_no_group) == 0);
	CHECK("with it: yes", as_user(1000, 1000, 2000, u_group) == 0);
	CHECK("access(2)", as_user(1000, 1000, 0, u_access) == 0);
	CHECK("exec of 0111", as_user(1000, 1000, 0, u_exec) == 42);
	CHECK("reading 0111 is refused", as_user(1000, 1000, 0, u_read_0111) == 0);
	CHECK("a write by others clears setuid", as_user(1000, 1000, 0, u_write_setuid) == 0 && (sync(), (st("setuid").st_mode & 06000) == 0));
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "exit")) return 42;
	if (argc != 2 || chdir(argv[1])) { fprintf(stderr, "usage: semantic DIR\n"); return 2; }
	umask(022);
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	self[n > 0 ? n : 0] = 0;
	if (mkdir("semantic", 0755) || chdir("semantic")) { perror("semantic"); return 2; }
	files_and_links();
	nodes();
	attributes();
	contents();
	names();
	users(self);
	races();
	if (chdir("..") == 0 && system("rm -rf semantic") != 0) printf("FAIL rm -rf\n"), total++;
	printf("semantic: %d of %d\n", passed, total);
	return passed == total ? 0 : 1;
}
