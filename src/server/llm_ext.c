/*
 * llm_ext.c
 *	  The module's entry point.
 *
 *	  settings.c	every llm_ext.* setting
 *	  report.c		LlmError to ereport
 *	  pg_compat.h	what differs between PostgreSQL's majors
 *	  scheduler/	requests, models and executors: shared memory and worker
 *	  sql/			the SQL functions
 *	  finetune/		jobs that train adapters: their workers, and their SQL
 *
 * Loading must never fail, also where the library is not preloaded: pg_upgrade
 * and CREATE FUNCTION load it into servers that know nothing of it.  Then only
 * the settings are defined, and every function that needs the scheduler says
 * what is missing.
 *
 * src/server/llm_ext.c
 */
#include "postgres.h"

#include "miscadmin.h"
#include "src/server/finetune/finetune_subsys.h"
#include "src/server/pg_compat.h"
#include "src/server/scan/scan_subsys.h"
#include "src/server/scheduler/scheduler_subsys.h"
#include "src/server/settings.h"

LLM_PG_MODULE_MAGIC("llm_ext", "0.1");

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	llm_settings_define();
	llm_scan_init();
	if (process_shared_preload_libraries_in_progress)
	{
		llm_finetune_init();
		llm_scheduler_init(llm_finetune_launch);
	}
}
