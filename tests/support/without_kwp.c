/*
 * SoftHSM without AES key wrap with padding: what a PKCS#11 module looks like that cannot keep pools.
 * Every function is SoftHSM's but the two that wrap, which know neither CKM_AES_KEY_WRAP_PAD nor CKM_AES_KEY_WRAP_KWP.
 * Built by a test: cc -shared -fPIC -DSOFTHSM='"/path/to/libsofthsm2.so"' -o without_kwp.so without_kwp.c
 */
#include <dlfcn.h>
#include <string.h>

typedef unsigned long ck;
typedef struct { ck mechanism; void *parameter; ck length; } mechanism;
/* PKCS#11 2.40, CK_FUNCTION_LIST: a version and 68 functions in a fixed order. */
typedef struct { unsigned char version[2]; void *function[68]; } function_list;

enum { CKR_OK = 0, CKR_GENERAL_ERROR = 5, CKR_MECHANISM_INVALID = 0x70 };
enum { GET_FUNCTION_LIST = 3, WRAP_KEY = 60, UNWRAP_KEY = 61 };

static function_list *softhsm;
static function_list ours;

static int pads(const mechanism *m) { return m->mechanism == 0x210A || m->mechanism == 0x210B; }

static ck wrap(ck session, mechanism *m, ck by, ck key, void *out, ck *length) {
    if (pads(m)) return CKR_MECHANISM_INVALID;
    return ((ck (*)(ck, mechanism *, ck, ck, void *, ck *))softhsm->function[WRAP_KEY])(session, m, by, key, out, length);
}

static ck unwrap(ck session, mechanism *m, ck by, void *in, ck length, void *attributes, ck count, ck *key) {
    if (pads(m)) return CKR_MECHANISM_INVALID;
    return ((ck (*)(ck, mechanism *, ck, void *, ck, void *, ck, ck *))softhsm->function[UNWRAP_KEY])(
        session, m, by, in, length, attributes, count, key);
}

ck C_GetFunctionList(function_list **list) {
    if (softhsm == NULL) {
        void *library = dlopen(SOFTHSM, RTLD_NOW | RTLD_LOCAL);
        ck (*get)(function_list **) = library ? (ck (*)(function_list **))dlsym(library, "C_GetFunctionList") : NULL;
        if (get == NULL || get(&softhsm) != CKR_OK) return CKR_GENERAL_ERROR;
        memcpy(&ours, softhsm, sizeof ours);
        ours.function[GET_FUNCTION_LIST] = (void *)C_GetFunctionList;
        ours.function[WRAP_KEY] = (void *)wrap;
        ours.function[UNWRAP_KEY] = (void *)unwrap;
    }
    *list = &ours;
    return CKR_OK;
}
