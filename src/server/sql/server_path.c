/*
 * server_path.c
 *	  Paths of the server's files in arguments, and who may name them.
 *
 * src/server/sql/server_path.c
 */
#include "postgres.h"

#include "src/server/sql/server_path.h"

#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

void
llm_check_may_read_server_files(const char *what)
{
	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to read %s from the server", what),
				 errdetail("Only roles with privileges of the "
						   "\"pg_read_server_files\" role may do so.")));
}

void
llm_check_may_write_server_files(const char *what)
{
	if (!has_privs_of_role(GetUserId(), ROLE_PG_WRITE_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to write %s on the server", what),
				 errdetail("Only roles with privileges of the "
						   "\"pg_write_server_files\" role may do so.")));
}

char *
llm_path_argument(text *argument, const char *what)
{
	char *path = text_to_cstring(argument);

	if (!is_absolute_path(path))
		ereport(ERROR, (errcode(ERRCODE_INVALID_NAME),
						errmsg("%s path \"%s\" is not absolute", what, path)));
	canonicalize_path(path);
	if (strlen(path) >= MAXPGPATH)
		ereport(ERROR, (errcode(ERRCODE_NAME_TOO_LONG),
						errmsg("%s path is too long", what)));
	return path;
}
