/* Counting of checks and small helpers, for the parts of semantic. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern int passed, total;

#define CHECK(what, condition) do { \
	total++; \
	errno = 0; \
	if (condition) passed++; \
	else printf("FAIL %s (line %d, %s)\n", what, __LINE__, strerrorname_np(errno)); \
} while (0)
#define FAILS(error, call) ((call) == -1 && errno == (error))

struct stat st(const char *path);
int put(const char *path, const char *text);
int holds(const char *path, const char *text);
int as_user(uid_t uid, gid_t gid, gid_t more, int (*f)(void));
void drop_caches(void);

/* What several processes do at once. */
void races(void);
