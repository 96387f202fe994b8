/*
 * weight_spec.c
 *	  The weights that a config calls for, and whether a checkpoint has them.
 *
 * src/common/model_dir/weight_spec.c
 */
#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "src/common/checkpoint/checkpoint.h"
#include "src/common/model_dir/model_dir_internal.h"

/* Roles from this one on come once in each layer. */
#define FIRST_LAYER_ROLE LLM_WEIGHT_ATTN_NORM

static bool
has_role(const LlmModelConfig *config, LlmWeightRole role)
{
	switch (role)
	{
		case LLM_WEIGHT_LM_HEAD:
			return !config->tie_word_embeddings;
		case LLM_WEIGHT_Q_BIAS:
		case LLM_WEIGHT_K_BIAS:
		case LLM_WEIGHT_V_BIAS:
			return config->has_qkv_bias;
		case LLM_WEIGHT_O_BIAS:
			return config->has_o_bias;
		case LLM_WEIGHT_Q_NORM:
		case LLM_WEIGHT_K_NORM:
			return config->has_qk_norm;
		case LLM_WEIGHT_GATE_BIAS:
		case LLM_WEIGHT_UP_BIAS:
		case LLM_WEIGHT_DOWN_BIAS:
			return config->has_mlp_bias;
		case LLM_WEIGHT_POST_ATTN_NORM:
		case LLM_WEIGHT_POST_MLP_NORM:
			return config->has_post_norms;
		case LLM_WEIGHT_ROUTER:
		case LLM_WEIGHT_EXPERT_GATE:
		case LLM_WEIGHT_EXPERT_UP:
		case LLM_WEIGHT_EXPERT_DOWN:
			return config->n_experts > 0;
		default:
			return true;
	}
}

static void
set_shape(LlmWeightSpec *spec, int64_t n_rows, int64_t n_cols)
{
	spec->n_rows = n_rows;
	spec->n_cols = n_cols;
}

static void
shape_of_role(const LlmModelConfig *config, LlmWeightSpec *spec)
{
	int64_t hidden = config->hidden_size;
	int64_t inner = config->intermediate_size;
	int64_t q_dim = (int64_t) config->n_heads * config->head_dim;
	int64_t kv_dim = (int64_t) config->n_kv_heads * config->head_dim;

	switch (spec->role)
	{
		case LLM_WEIGHT_EMBED:
		case LLM_WEIGHT_LM_HEAD:
			set_shape(spec, config->n_vocab, hidden);
			break;
		case LLM_WEIGHT_FINAL_NORM:
		case LLM_WEIGHT_ATTN_NORM:
		case LLM_WEIGHT_MLP_NORM:
		case LLM_WEIGHT_POST_ATTN_NORM:
		case LLM_WEIGHT_POST_MLP_NORM:
		case LLM_WEIGHT_O_BIAS:
		case LLM_WEIGHT_DOWN_BIAS:
			set_shape(spec, hidden, 0);
			break;
		case LLM_WEIGHT_Q:
			set_shape(spec, q_dim, hidden);
			break;
		case LLM_WEIGHT_K:
		case LLM_WEIGHT_V:
			set_shape(spec, kv_dim, hidden);
			break;
		case LLM_WEIGHT_O:
			set_shape(spec, hidden, q_dim);
			break;
		case LLM_WEIGHT_Q_BIAS:
			set_shape(spec, q_dim, 0);
			break;
		case LLM_WEIGHT_K_BIAS:
		case LLM_WEIGHT_V_BIAS:
			set_shape(spec, kv_dim, 0);
			break;
		case LLM_WEIGHT_Q_NORM:
		case LLM_WEIGHT_K_NORM:
			set_shape(spec, config->head_dim, 0);
			break;
		case LLM_WEIGHT_GATE:
		case LLM_WEIGHT_UP:
			set_shape(spec, inner, hidden);
			break;
		case LLM_WEIGHT_DOWN:
			set_shape(spec, hidden, inner);
			break;
		case LLM_WEIGHT_GATE_BIAS:
		case LLM_WEIGHT_UP_BIAS:
			set_shape(spec, inner, 0);
			break;
		case LLM_WEIGHT_ROUTER:
			set_shape(spec, config->n_experts, hidden);
			break;
		case LLM_WEIGHT_EXPERT_GATE:
		case LLM_WEIGHT_EXPERT_UP:
			set_shape(spec, config->expert_intermediate_size, hidden);
			break;
		case LLM_WEIGHT_EXPERT_DOWN:
			set_shape(spec, hidden, config->expert_intermediate_size);
			break;
		case LLM_WEIGHT_ROLE_COUNT:
			assert(false);
			break;
	}
}

/* Write pattern to name with '#' replaced by the layer. */
static void
expand_name(const char *pattern, int32_t layer_idx, char *name, size_t size)
{
	const char *mark = strchr(pattern, '#');

	if (mark == NULL)
		snprintf(name, size, "%s", pattern);
	else
		snprintf(name, size, "%.*s%d%s", (int) (mark - pattern), pattern,
				 layer_idx, mark + 1);
}

static void
fill_spec(const LlmModelConfig *config, LlmWeightRole role, int32_t layer_idx,
		  LlmWeightSpec *spec)
{
	const char *pattern = config->family->tensor_names[role];

	assert(pattern != NULL);
	spec->role = role;
	spec->layer_idx = layer_idx;
	spec->expert_idx = -1;
	expand_name(pattern, layer_idx, spec->name, sizeof(spec->name));
	shape_of_role(config, spec);
	spec->first_row = 0;
	spec->stored_rows = spec->n_rows;
}

/* The n-th role that the config has, from first up to before last. */
static LlmWeightRole
nth_role(const LlmModelConfig *config, int n, int first, int last)
{
	for (int role = first; role < last; role++)
	{
		if (has_role(config, (LlmWeightRole) role) && n-- == 0)
			return (LlmWeightRole) role;
	}
	return LLM_WEIGHT_ROLE_COUNT;
}

static int
count_layer_roles(const LlmModelConfig *config)
{
	int n = 0;

	for (int role = FIRST_LAYER_ROLE; role < LLM_WEIGHT_ROLE_COUNT; role++)
		n += has_role(config, (LlmWeightRole) role);
	return n;
}

/* In the order of a forward pass: embedding, layers, final norm, head. */
bool
llm_model_weight_spec(const LlmModelConfig *config, int weight_idx,
					  LlmWeightSpec *spec)
{
	int n_per_layer = count_layer_roles(config);
	int n_in_layers = n_per_layer * config->n_layers;
	int n = weight_idx - 1;
	LlmWeightRole role;

	assert(weight_idx >= 0);
	if (weight_idx == 0)
	{
		fill_spec(config, LLM_WEIGHT_EMBED, -1, spec);
		return true;
	}
	if (n < n_in_layers)
	{
		role = nth_role(config, n % n_per_layer, FIRST_LAYER_ROLE,
						LLM_WEIGHT_ROLE_COUNT);
		fill_spec(config, role, n / n_per_layer, spec);
		return true;
	}
	role = nth_role(config, n - n_in_layers, LLM_WEIGHT_FINAL_NORM,
					FIRST_LAYER_ROLE);
	if (role == LLM_WEIGHT_ROLE_COUNT)
		return false;
	fill_spec(config, role, -1, spec);
	return true;
}

int64_t
llm_model_n_params(const LlmModelConfig *config)
{
	LlmWeightSpec spec;
	int64_t n = 0;

	for (int i = 0; llm_model_weight_spec(config, i, &spec); i++)
		n += spec.n_rows * (spec.n_cols > 0 ? spec.n_cols : 1);
	return n;
}

int64_t
llm_model_kv_bytes_per_token(const LlmModelConfig *config, LlmDtype kv_dtype)
{
	return 2 * (int64_t) config->n_layers * config->n_kv_heads *
		   config->head_dim * (int64_t) llm_dtype_bytes(kv_dtype);
}

/* ---- a checkpoint's tensors against the weights ---- */

typedef struct TensorCheck
{
	const LlmModelConfig *config;
	const LlmCheckpoint *tensors;
	LlmError *problems;
	int max_problems;
	int n_problems;
} TensorCheck;

/* Where to describe the next problem; NULL when there is no room. */
static LlmError *
next_problem(TensorCheck *check)
{
	int idx = check->n_problems++;

	return idx < check->max_problems ? &check->problems[idx] : NULL;
}

static void
print_shape(char *text, size_t size, const int64_t *shape, int n_dims)
{
	size_t used = (size_t) snprintf(text, size, "[");

	for (int i = 0; i < n_dims && used < size; i++)
		used += (size_t) snprintf(text + used, size - used, "%s%lld",
								  i > 0 ? ", " : "", (long long) shape[i]);
	if (used < size)
		snprintf(text + used, size - used, "]");
}

/* Floats, or the blocks that src/common/quant decodes. */
static bool
is_weight_dtype(LlmDtype dtype)
{
	return llm_dtype_is_float(dtype) || llm_dtype_block_elements(dtype) > 1;
}

static void
check_weight(TensorCheck *check, const LlmWeightSpec *spec)
{
	const LlmStoredTensor *tensor =
		llm_checkpoint_find(check->tensors, spec->name);
	int64_t shape[2] = { spec->n_rows, spec->n_cols };
	int n_dims = spec->n_cols > 0 ? 2 : 1;
	const char *path;

	if (tensor == NULL)
	{
		/* all files of a checkpoint lie in one directory: any names it */
		llm_error_set(
			next_problem(check), LLM_ERROR_NOT_FOUND,
			"%s: tensor \"%s\" is missing",
			llm_checkpoint_n_tensors(check->tensors) > 0
				? llm_checkpoint_path(check->tensors,
									  llm_checkpoint_get(check->tensors, 0))
				: "checkpoint",
			spec->name);
		return;
	}
	path = llm_checkpoint_path(check->tensors, tensor);
	if (tensor->n_dims != n_dims ||
		memcmp(tensor->shape, shape, (size_t) n_dims * sizeof(*shape)) != 0)
	{
		char expected[64];
		char actual[200];

		print_shape(expected, sizeof(expected), shape, n_dims);
		print_shape(actual, sizeof(actual), tensor->shape, tensor->n_dims);
		llm_error_set(next_problem(check), LLM_ERROR_FORMAT,
					  "%s: tensor \"%s\" has shape %s, but the config calls "
					  "for %s",
					  path, spec->name, actual, expected);
	}
	else if (!tensor->is_known_dtype || !is_weight_dtype(tensor->dtype))
		llm_error_set(next_problem(check), LLM_ERROR_UNSUPPORTED,
					  "%s: tensor \"%s\" has dtype %s, which is not supported",
					  path, spec->name, tensor->dtype_name);
}

/* '#' in a pattern stands for a number. */
static bool
matches(const char *pattern, const char *name)
{
	for (; *pattern != '\0'; pattern++)
	{
		if (*pattern == '#')
		{
			if (!isdigit((unsigned char) *name))
				return false;
			while (isdigit((unsigned char) *name))
				name++;
		}
		else if (*pattern != *name++)
			return false;
	}
	return *name == '\0';
}

/*
 * A head that is stored although it is tied: fine where it has the
 * embedding's shape; the loader compares its values.
 */
static bool
is_tied_head(const TensorCheck *check, const LlmStoredTensor *tensor)
{
	const LlmModelConfig *config = check->config;

	return config->tie_word_embeddings &&
		   strcmp(tensor->name,
				  config->family->tensor_names[LLM_WEIGHT_LM_HEAD]) == 0 &&
		   tensor->n_dims == 2 && tensor->shape[0] == config->n_vocab &&
		   tensor->shape[1] == config->hidden_size;
}

/* Whether text begins with a layer's number, written the usual way. */
static bool
is_layer_number(const char *text, int32_t n_layers)
{
	int32_t layer_idx = 0;
	int n_digits = 0;

	for (; isdigit((unsigned char) text[n_digits]); n_digits++)
	{
		if (n_digits == 5)
			return false;
		layer_idx = layer_idx * 10 + (text[n_digits] - '0');
	}
	return layer_idx < n_layers && n_digits > 0 &&
		   (n_digits == 1 || text[0] != '0');
}

static bool
is_expected(const TensorCheck *check, const LlmStoredTensor *tensor)
{
	const LlmModelConfig *config = check->config;
	const char *const *harmless = config->family->harmless_tensors;

	for (int role = 0; role < LLM_WEIGHT_ROLE_COUNT; role++)
	{
		const char *pattern = config->family->tensor_names[role];
		const char *mark;

		if (pattern == NULL || !has_role(config, (LlmWeightRole) role) ||
			!matches(pattern, tensor->name))
			continue;
		mark = strchr(pattern, '#');
		return mark == NULL || is_layer_number(tensor->name + (mark - pattern),
											   config->n_layers);
	}
	for (; *harmless != NULL; harmless++)
	{
		if (matches(*harmless, tensor->name))
			return true;
	}
	return is_tied_head(check, tensor);
}

int
llm_model_check_tensors(const LlmModelConfig *config,
						const LlmCheckpoint *tensors, LlmError *problems,
						int max_problems)
{
	TensorCheck check = { config, tensors, problems, max_problems, 0 };
	LlmWeightSpec spec;

	for (int i = 0; llm_model_weight_spec(config, i, &spec); i++)
		check_weight(&check, &spec);
	for (int i = 0; i < llm_checkpoint_n_tensors(tensors); i++)
	{
		const LlmStoredTensor *tensor = llm_checkpoint_get(tensors, i);

		if (!is_expected(&check, tensor))
			llm_error_set(next_problem(&check), LLM_ERROR_UNSUPPORTED,
						  "%s: tensor \"%s\" is not part of architecture "
						  "\"%s\"",
						  llm_checkpoint_path(tensors, tensor), tensor->name,
						  config->architecture);
	}
	return check.n_problems;
}
