//! A PKCS#11 module for tests: forwards every call to a real module, and fails on command.
//!
//! Environment: `PKCS11_FAULT_MODULE` is the real module's path, `PKCS11_FAULT_CONTROL` the path of a text file that is
//! read again at every call; where there is none, every call is forwarded. [`rules`] describes its lines. The process
//! that loads this module needs no other preparation.

mod rules;

use cryptoki_sys::*;
use libloading::Library;
use rules::Fault;
use std::sync::OnceLock;

/// The real module's functions.
fn real() -> Option<&'static CK_FUNCTION_LIST> {
    static REAL: OnceLock<Option<CK_FUNCTION_LIST>> = OnceLock::new();
    REAL.get_or_init(|| {
        let path = std::env::var_os("PKCS11_FAULT_MODULE")?;
        // SAFETY: loading a PKCS#11 module runs its initialisers, which is what whoever names it here asks for.
        let library = unsafe { Library::new(path) }.ok()?;
        let mut list: CK_FUNCTION_LIST_PTR = std::ptr::null_mut();
        // SAFETY: PKCS#11 gives this function this type; it writes a pointer to a list that lives as long as the module.
        let copied = unsafe {
            let get = library
                .get::<unsafe extern "C" fn(*mut CK_FUNCTION_LIST_PTR) -> CK_RV>(b"C_GetFunctionList\0")
                .ok()?;
            if get(&raw mut list) != CKR_OK {
                return None;
            }
            list.as_ref().copied()
        };
        // Never unloaded: the functions are called until the process ends.
        std::mem::forget(library);
        copied
    })
    .as_ref()
}

/// The functions that may fail: each asks the rules, then forwards.
macro_rules! forward {
    ($( $name:ident ( $( $argument:ident : $type:ty ),* ) )*) => {
        $(
            #[allow(non_snake_case, reason = "the standard's name")]
            unsafe extern "C" fn $name($( $argument: $type ),*) -> CK_RV {
                let Some(function) = real().and_then(|list| list.$name) else { return CKR_FUNCTION_NOT_SUPPORTED };
                match rules::fault(stringify!($name)) {
                    // SAFETY: the caller's promise to this function is its promise to the real one.
                    None => unsafe { function($( $argument ),*) },
                    Some(Fault::Return(code)) => code,
                    Some(Fault::Invalidate) => {
                        invalidate_sessions();
                        // SAFETY: as above; a session that is gone is an error that the real module answers.
                        unsafe { function($( $argument ),*) }
                    }
                }
            }
        )*

        /// The functions above, in place of the real module's.
        fn replace(list: &mut CK_FUNCTION_LIST) {
            $( list.$name = Some($name); )*
        }
    };
}

forward! {
    C_Initialize(arguments: *mut std::ffi::c_void)
    C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO)
    C_OpenSession(slot: CK_SLOT_ID, flags: CK_FLAGS, application: *mut std::ffi::c_void, notify: CK_NOTIFY, session: *mut CK_SESSION_HANDLE)
    C_Login(session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: *mut CK_UTF8CHAR, length: CK_ULONG)
    C_CreateObject(session: CK_SESSION_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG, object: *mut CK_OBJECT_HANDLE)
    C_DestroyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE)
    C_GetAttributeValue(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG)
    C_FindObjectsInit(session: CK_SESSION_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG)
    C_FindObjects(session: CK_SESSION_HANDLE, objects: *mut CK_OBJECT_HANDLE, most: CK_ULONG, count: *mut CK_ULONG)
    C_FindObjectsFinal(session: CK_SESSION_HANDLE)
    C_SignInit(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE)
    C_Sign(session: CK_SESSION_HANDLE, data: *mut CK_BYTE, length: CK_ULONG, signature: *mut CK_BYTE, signature_length: *mut CK_ULONG)
    C_WrapKey(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, wrapping: CK_OBJECT_HANDLE, key: CK_OBJECT_HANDLE, wrapped: *mut CK_BYTE, length: *mut CK_ULONG)
    C_UnwrapKey(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, unwrapping: CK_OBJECT_HANDLE, wrapped: *mut CK_BYTE, length: CK_ULONG, template: *mut CK_ATTRIBUTE, count: CK_ULONG, key: *mut CK_OBJECT_HANDLE)
    C_DeriveKey(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, base: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG, key: *mut CK_OBJECT_HANDLE)
    C_GenerateRandom(session: CK_SESSION_HANDLE, data: *mut CK_BYTE, length: CK_ULONG)
}

/// `C_GetSlotList`: a token that is away is a list without slots, not an error.
#[allow(non_snake_case, reason = "the standard's name")]
unsafe extern "C" fn get_slot_list(present: CK_BBOOL, slots: *mut CK_SLOT_ID, count: *mut CK_ULONG) -> CK_RV {
    let Some(function) = real().and_then(|list| list.C_GetSlotList) else {
        return CKR_FUNCTION_NOT_SUPPORTED;
    };
    match rules::fault("C_GetSlotList") {
        Some(Fault::Return(CKR_DEVICE_REMOVED)) if !count.is_null() => {
            // SAFETY: the standard makes it a pointer to a count, and it is not null.
            unsafe { *count = 0 };
            CKR_OK
        }
        Some(Fault::Return(code)) => code,
        // SAFETY: the caller's promise to this function is its promise to the real one.
        Some(Fault::Invalidate) | None => unsafe { function(present, slots, count) },
    }
}

/// `C_GenerateKey`, which a full token refuses for token objects.
unsafe extern "C" fn generate_key(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
    key: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    let Some(function) = real().and_then(|list| list.C_GenerateKey) else {
        return CKR_FUNCTION_NOT_SUPPORTED;
    };
    // SAFETY: the standard makes it an array of `count` attributes.
    let stored = unsafe { on_token(template, count) };
    match rules::fault(if stored { "C_GenerateKey:token" } else { "C_GenerateKey" }) {
        Some(Fault::Return(code)) => code,
        // SAFETY: the caller's promise to this function is its promise to the real one.
        Some(Fault::Invalidate) | None => unsafe { function(session, mechanism, template, count, key) },
    }
}

/// `C_GenerateKeyPair`, likewise.
#[allow(clippy::too_many_arguments, reason = "the standard's function")]
unsafe extern "C" fn generate_key_pair(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    public: *mut CK_ATTRIBUTE,
    public_count: CK_ULONG,
    private: *mut CK_ATTRIBUTE,
    private_count: CK_ULONG,
    public_key: *mut CK_OBJECT_HANDLE,
    private_key: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    let Some(function) = real().and_then(|list| list.C_GenerateKeyPair) else {
        return CKR_FUNCTION_NOT_SUPPORTED;
    };
    // SAFETY: the standard makes it an array of `private_count` attributes.
    let stored = unsafe { on_token(private, private_count) };
    match rules::fault(if stored { "C_GenerateKeyPair:token" } else { "C_GenerateKeyPair" }) {
        Some(Fault::Return(code)) => code,
        // SAFETY: the caller's promise to this function is its promise to the real one.
        Some(Fault::Invalidate) | None => unsafe {
            function(
                session,
                mechanism,
                public,
                public_count,
                private,
                private_count,
                public_key,
                private_key,
            )
        },
    }
}

/// Whether a template asks for a token object.
///
/// # Safety
/// `template` points to `count` attributes, or is null.
unsafe fn on_token(template: *const CK_ATTRIBUTE, count: CK_ULONG) -> bool {
    if template.is_null() {
        return false;
    }
    // SAFETY: the function's own condition.
    let attributes = unsafe { std::slice::from_raw_parts(template, usize::try_from(count).unwrap_or(0)) };
    attributes.iter().any(|attribute| {
        // SAFETY: an attribute's value points to as many bytes as it says; CKA_TOKEN's is one.
        attribute.type_ == CKA_TOKEN
            && attribute.ulValueLen == 1
            && !attribute.pValue.is_null()
            && unsafe { *attribute.pValue.cast::<CK_BBOOL>() } == CK_TRUE
    })
}

/// Closes every session of every slot behind the application's back.
fn invalidate_sessions() {
    let Some(list) = real() else { return };
    let (Some(slot_list), Some(close)) = (list.C_GetSlotList, list.C_CloseAllSessions) else { return };
    let mut slots = [0; 16];
    let mut count = slots.len() as CK_ULONG;
    // SAFETY: `count` says how many slots there is room for; closing sessions of a slot needs nothing else.
    unsafe {
        if slot_list(CK_TRUE, slots.as_mut_ptr(), &raw mut count) == CKR_OK {
            for slot in slots.iter().take(usize::try_from(count).unwrap_or(0)) {
                close(*slot);
            }
        }
    }
}

/// The module's entry point (PKCS#11 v2.40, 5.4).
///
/// # Safety
/// `list` points to where the pointer is to be written, or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut CK_FUNCTION_LIST_PTR) -> CK_RV {
    /// The list that callers get.
    struct Replaced(CK_FUNCTION_LIST);
    static LIST: OnceLock<Option<Box<Replaced>>> = OnceLock::new();
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    let replaced = LIST.get_or_init(|| {
        let mut list = *real()?;
        replace(&mut list);
        list.C_GetSlotList = Some(get_slot_list);
        list.C_GenerateKey = Some(generate_key);
        list.C_GenerateKeyPair = Some(generate_key_pair);
        Some(Box::new(Replaced(list)))
    });
    let Some(replaced) = replaced else { return CKR_GENERAL_ERROR };
    // SAFETY: not null; callers only read the list.
    unsafe { *list = (&raw const replaced.0).cast_mut() };
    CKR_OK
}
