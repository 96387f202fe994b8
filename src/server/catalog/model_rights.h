/*
 * model_rights.h
 *	  Who may use which model.
 *
 * src/server/catalog/model_rights.h
 */
#ifndef LLM_MODEL_RIGHTS_H
#define LLM_MODEL_RIGHTS_H

#include "postgres.h"

/* Superusers may use every model; others need a grant (llm_grant_model). */
extern bool llm_model_rights_has(Oid role_id, const char *model_name);

/* Raises 42501 with the way out. */
extern void llm_model_rights_check(Oid role_id, const char *model_name);

#endif /* LLM_MODEL_RIGHTS_H */
