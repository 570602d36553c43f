//! kryoptic, a software token that is independent of SoftHSM2, as a PKCS#11 module for tests.
//!
//! It has AES-KWP (RFC 5649) under PKCS#11 3.0's number 0x210B only, which the crate that keybroker uses cannot express
//! (src/hsm/quirks.rs). This module translates the older number 0x210A, where a mechanism is named: in C_WrapKey and
//! C_UnwrapKey, and in CKA_ALLOWED_MECHANISMS of a template. Everything else is kryoptic's.
//! `KRYOPTIC_CONF` names its configuration file.

use kryoptic_lib::fns::general::fn_get_function_list;
use kryoptic_lib::pkcs11::*;
use std::sync::OnceLock;

const PAD: CK_MECHANISM_TYPE = 0x210A;
const KWP: CK_MECHANISM_TYPE = 0x210B;

/// kryoptic's own functions.
fn kryoptic() -> Option<&'static CK_FUNCTION_LIST> {
    static LIST: OnceLock<Option<CK_FUNCTION_LIST>> = OnceLock::new();
    LIST.get_or_init(|| {
        let mut list: *mut CK_FUNCTION_LIST = std::ptr::null_mut();
        if fn_get_function_list(&raw mut list) != CKR_OK {
            return None;
        }
        // SAFETY: on success it points to kryoptic's static list.
        unsafe { list.as_ref().copied() }
    })
    .as_ref()
}

/// A mechanism with the number that kryoptic knows.
///
/// # Safety
/// `mechanism` points to a mechanism or is null.
unsafe fn translated(mechanism: *const CK_MECHANISM) -> Option<CK_MECHANISM> {
    // SAFETY: the function's own condition.
    let mut mechanism = unsafe { mechanism.as_ref().copied() }?;
    if mechanism.mechanism == PAD {
        mechanism.mechanism = KWP;
    }
    Some(mechanism)
}

/// A template whose CKA_ALLOWED_MECHANISMS has the numbers that kryoptic knows.
struct Template {
    attributes: Vec<CK_ATTRIBUTE>,
    /// What `attributes` point to in place of the caller's value.
    _allowed: Vec<Vec<CK_MECHANISM_TYPE>>,
}

impl Template {
    /// # Safety
    /// `template` points to `count` attributes or is null; each value points to as many bytes as it says.
    unsafe fn new(template: *const CK_ATTRIBUTE, count: CK_ULONG) -> Self {
        if template.is_null() {
            return Self { attributes: Vec::new(), _allowed: Vec::new() };
        }
        // SAFETY: the function's own condition.
        let mut attributes = unsafe { std::slice::from_raw_parts(template, count as usize) }.to_vec();
        let mut allowed = Vec::new();
        for attribute in
            attributes.iter_mut().filter(|one| one.type_ == CKA_ALLOWED_MECHANISMS && !one.pValue.is_null())
        {
            let length = attribute.ulValueLen as usize / size_of::<CK_MECHANISM_TYPE>();
            let value = attribute.pValue.cast::<CK_MECHANISM_TYPE>();
            // SAFETY: the value is an array of mechanism types; it need not be aligned.
            let mut numbers: Vec<_> =
                (0..length).map(|at| unsafe { value.add(at).read_unaligned() }).collect();
            numbers.iter_mut().filter(|number| **number == PAD).for_each(|number| *number = KWP);
            attribute.pValue = numbers.as_mut_ptr().cast();
            allowed.push(numbers);
        }
        Self { attributes, _allowed: allowed }
    }

    fn pointer(&mut self) -> *mut CK_ATTRIBUTE {
        if self.attributes.is_empty() { std::ptr::null_mut() } else { self.attributes.as_mut_ptr() }
    }
}

extern "C" fn wrap_key(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    wrapping: CK_OBJECT_HANDLE,
    key: CK_OBJECT_HANDLE,
    wrapped: CK_BYTE_PTR,
    length: CK_ULONG_PTR,
) -> CK_RV {
    // SAFETY: the standard makes it a pointer to a mechanism.
    let (Some(function), Some(mut mechanism)) =
        (kryoptic().and_then(|list| list.C_WrapKey), unsafe { translated(mechanism) })
    else {
        return CKR_ARGUMENTS_BAD;
    };
    // SAFETY: the caller's promise to this function is its promise to kryoptic's.
    unsafe { function(session, &raw mut mechanism, wrapping, key, wrapped, length) }
}

extern "C" fn unwrap_key(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    unwrapping: CK_OBJECT_HANDLE,
    wrapped: CK_BYTE_PTR,
    length: CK_ULONG,
    template: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
    key: CK_OBJECT_HANDLE_PTR,
) -> CK_RV {
    // SAFETY: the standard makes them a pointer to a mechanism and to `count` attributes.
    let (mechanism, mut template) = unsafe { (translated(mechanism), Template::new(template, count)) };
    let (Some(function), Some(mut mechanism)) = (kryoptic().and_then(|list| list.C_UnwrapKey), mechanism)
    else {
        return CKR_ARGUMENTS_BAD;
    };
    // SAFETY: the caller's promise to this function is its promise to kryoptic's.
    unsafe {
        function(session, &raw mut mechanism, unwrapping, wrapped, length, template.pointer(), count, key)
    }
}

extern "C" fn generate_key(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    template: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
    key: CK_OBJECT_HANDLE_PTR,
) -> CK_RV {
    // SAFETY: the standard makes it a pointer to `count` attributes.
    let mut template = unsafe { Template::new(template, count) };
    let Some(function) = kryoptic().and_then(|list| list.C_GenerateKey) else {
        return CKR_FUNCTION_NOT_SUPPORTED;
    };
    // SAFETY: the caller's promise to this function is its promise to kryoptic's.
    unsafe { function(session, mechanism, template.pointer(), count, key) }
}

extern "C" fn derive_key(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    base: CK_OBJECT_HANDLE,
    template: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
    key: CK_OBJECT_HANDLE_PTR,
) -> CK_RV {
    // SAFETY: the standard makes it a pointer to `count` attributes.
    let mut template = unsafe { Template::new(template, count) };
    let Some(function) = kryoptic().and_then(|list| list.C_DeriveKey) else {
        return CKR_FUNCTION_NOT_SUPPORTED;
    };
    // SAFETY: the caller's promise to this function is its promise to kryoptic's.
    unsafe { function(session, mechanism, base, template.pointer(), count, key) }
}

/// The module's entry point (PKCS#11 v2.40, 5.4).
///
/// # Safety
/// `list` points to where the pointer is to be written, or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: CK_FUNCTION_LIST_PTR_PTR) -> CK_RV {
    static LIST: OnceLock<Option<CK_FUNCTION_LIST>> = OnceLock::new();
    let replaced = LIST.get_or_init(|| {
        let mut list = *kryoptic()?;
        list.C_WrapKey = Some(wrap_key);
        list.C_UnwrapKey = Some(unwrap_key);
        list.C_GenerateKey = Some(generate_key);
        list.C_DeriveKey = Some(derive_key);
        Some(list)
    });
    match replaced {
        Some(replaced) if !list.is_null() => {
            // SAFETY: not null; callers only read the list.
            unsafe { *list = std::ptr::from_ref(replaced).cast_mut() };
            CKR_OK
        }
        Some(_) => CKR_ARGUMENTS_BAD,
        None => CKR_GENERAL_ERROR,
    }
}
