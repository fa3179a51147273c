/*
 * AnatomiX: anatomy-aware interpretation of chest radiographs. Research use, not a medical device.
 *
 * An engine is opened once from a bundle. It makes a study of each radiograph: 36 anatomical structures with boxes and
 * sentences, 14 labels, flags. Questions are asked of a study; each answer is text with phrases and their boxes.
 *
 *     anx_error *error = NULL;
 *     anx_engine *engine = NULL;
 *     anx_study *study = NULL;
 *     if (anx_engine_open("bundle", NULL, &engine, &error) != ANX_OK ||
 *         anx_study_from_file(engine, "chest.dcm", NULL, &study, &error) != ANX_OK) {
 *         fprintf(stderr, "%s\n", anx_error_message(error));
 *     }
 *     for (size_t i = 0; i < anx_study_structure_count(study); i++) {
 *         const anx_structure *s = anx_study_structure(study, i);
 *         printf("%s: %.0f %.0f\n", s->name, s->bounds.x0, s->bounds.y0);
 *     }
 *     anx_study_free(study);
 *     anx_engine_free(engine);
 *     anx_error_free(error);
 *
 * Linking. Link libanatomix.so (-lanatomix). It loads ONNX Runtime when the first engine is opened and is not linked to
 * it: see anx_engine_options.library. There is nothing to initialise or to shut down, and the library uses no network.
 * Threads that call it have to end before main returns: at exit a call may fail.
 * In C++ include anatomix.hpp instead, whose classes free their handles.
 *
 * Pointers. NULL never crashes. For a pointer whose description does not call it optional, a call that can fail returns
 * ANX_INVALID_ARGUMENT and names the argument, and an accessor returns what its description says. Any other pointer must be
 * valid: a handle that the library made and that was not freed, a NUL-terminated string, a struct of at least struct_size
 * bytes, memory of the size that is passed with it (none, with NULL, is empty memory). Strings are UTF-8; paths are the
 * operating system's bytes on Unix. The library borrows what is passed to it until the call returns.
 *
 * Lifetimes. Handles (anx_engine, anx_study, anx_answer, anx_cancel, anx_verified_bundle, anx_bytes, anx_error) are owned by the
 * caller and freed once, each by its own function, in any order: none needs another to stay alive. Strings and structs that an
 * accessor returns belong to the handle: they are read-only and valid until the handle is freed. Take structs by index,
 * one at a time: later versions may append fields to those whose description does not say otherwise.
 *
 * Threads. Any number of threads may use an engine at once, and its weights are in memory once. Callers of an engine with
 * one thread (anx_engine_options.threads) compute side by side, each on its own core; callers of an engine with several
 * threads share them; on a GPU, runs take turns. A study may move between threads, but one thread at a time asks it: a
 * second call returns ANX_BUSY. So threads that ask at the same time need a study each. Any thread may read what a study
 * perceived, and answers and errors, at any time, and use cancel handles. No thread may free a handle while another uses it.
 *
 * A thread that calls the library needs a stack of 512 KiB; the default of operating systems is larger. After fork without
 * exec the child must not call the library: the threads of its engines exist in the parent only, so a call would wait for
 * them for ever. Open engines after the fork, or start worker processes by exec.
 *
 * Errors. A call that can fail returns anx_status. It takes an optional anx_error **. If that is not NULL, it is set to
 * an error that the caller owns, or to NULL on success; an error that was there before is not freed. Outputs are set to
 * NULL on failure. A panic, which is a defect of the library, is caught and returned as ANX_PANIC. If the call was
 * one that changes a study (ask, ask_many, rewind, save), the study is poisoned: further calls of that kind fail with
 * ANX_POISONED, but it can still be read, documents and pictures of it can be made, and it must still be freed. An engine is
 * never poisoned: this thread and all others may go on using it. So every function that returns anx_status may fail with
 * ANX_PANIC, and those that change a study with ANX_POISONED; the descriptions do not repeat that. Running out of memory for
 * images, KV caches or saved studies is an error. Other allocations are small; if the system refuses one of them, the
 * process ends, as C++ programs do without a handler of std::bad_alloc.
 *
 * Options. A struct of options begins with struct_size, which the caller sets to sizeof of the struct; every other field
 * may be zero. So a program that was compiled against another version of this header works: options that it does not
 * know take their defaults, and options that the library does not know are an error unless they are zero.
 *
 * Versions. The interface only grows: a program that was compiled against this header runs with every later version of the
 * library. docs/abi.md in AnatomiX's repository is the whole promise, and says from which release on it holds.
 *
 * Names. Values of an enum begin with its name, such as ANX_FINISH_MEMORY of anx_finish (ANX_LOG_ for anx_log_level); those of
 * anx_status begin with ANX_ alone. An accessor that counts things ends in _count, and index counts them from 0. Memory ends in
 * _bytes, and only memory_limit does not; a time ends in _ms, and only anx_timing.milliseconds does not. A field or an argument
 * called size is the number of bytes behind a pointer. An options struct that takes a callback X has X_user_data, which each call
 * hands to X as it is; log_free is called with log_user_data.
 *
 * Coordinates. Boxes are in pixels of the original image: origin at its top-left corner, x right, y down.
 *
 * This file is generated from sdk/src/capi by cbindgen; do not edit it.
 */

#ifndef ANATOMIX_H
#define ANATOMIX_H

#include <stddef.h>
#include <stdint.h>

/**
 * Version of the interface that this header describes. It grows by one with every release that adds something. A program runs with every
 * library whose anx_abi_version() is equal or greater; see docs/abi.md.
 */
#define ANX_ABI_VERSION 1

/**
 * How a call ended. Every number but ANX_OK is a failure. Numbers keep their meaning, and later versions may add some. Treat an unknown
 * number from 100 on like the multiple of 100 below it, the general code of its group (123 like ANX_RADIOGRAPH), and one below 100 as a
 * call that failed for an unknown reason. The error's message always says what failed.
 */
enum anx_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif
 {
    /** The call did what it says. */
    ANX_OK = 0,
    /** An argument or an option cannot be used, such as NULL for a needed pointer; the message names it. */
    ANX_INVALID_ARGUMENT = 1,
    /**
     * A defect of the library stopped the call, which has no result. If the call was on a study, the study is poisoned; an engine can be
     * used as before.
     */
    ANX_PANIC = 2,
    /** An earlier call on this study ended with ANX_PANIC; free it and make a new one. */
    ANX_POISONED = 3,
    /** Another call is using this study: from another thread, or from anx_ask_options.piece of its running ask. */
    ANX_BUSY = 4,
    /** The call was stopped by a cancel handle before it was finished. */
    ANX_STOPPED = 5,
    /** The call was not finished when its deadline passed. */
    ANX_DEADLINE = 6,
    /** The radiograph cannot be used, for a reason that has no number of its own: several frames, an unsupported transfer syntax, ... */
    ANX_RADIOGRAPH = 100,
    /** The radiograph's file cannot be read. */
    ANX_RADIOGRAPH_READ = 101,
    /** The file is neither DICOM nor PNG nor JPEG. */
    ANX_RADIOGRAPH_FORMAT = 102,
    /** The file is empty, truncated or otherwise damaged. */
    ANX_RADIOGRAPH_DAMAGED = 103,
    /** The image or its file is too small or too large, or its sides do not match the number of pixels. */
    ANX_RADIOGRAPH_SIZE = 104,
    /** There is not enough memory for the radiograph. */
    ANX_RADIOGRAPH_MEMORY = 105,
    /**
     * The radiograph is flagged "not_chest", "not_frontal" or "for_processing", and the question does not accept flags; see
     * anx_ask_options.accept_flags.
     */
    ANX_RADIOGRAPH_FLAGGED = 106,
    /** The bundle's manifest cannot be used. */
    ANX_BUNDLE = 200,
    /** The bundle's folder, or a file in it, cannot be read. */
    ANX_BUNDLE_READ = 201,
    /** A file of the bundle is missing. */
    ANX_BUNDLE_MISSING = 202,
    /**
     * A file of the bundle is not what the manifest says: it has another size or hash, is not a regular file, was changed while the bundle
     * was being opened, or is a graph that takes weights from a file that the manifest does not list.
     */
    ANX_BUNDLE_ALTERED = 203,
    /** The bundle was made for a newer version of this library. */
    ANX_BUNDLE_NEWER = 204,
    /** The bundle is not signed by the owner of anx_engine_options.public_key. */
    ANX_BUNDLE_SIGNATURE = 205,
    /** The bundle's sentence database cannot be used. */
    ANX_RETRIEVAL = 300,
    /** ONNX Runtime failed on a graph. */
    ANX_RUNTIME = 400,
    /** ONNX Runtime's library was not found; the message lists the paths tried. */
    ANX_RUNTIME_NOT_FOUND = 401,
    /** ONNX Runtime's library cannot be loaded, is too old, or is not the one that this process has loaded before. */
    ANX_RUNTIME_LIBRARY = 402,
    /** The requested provider cannot run here; the message and the cause say why. */
    ANX_RUNTIME_PROVIDER = 403,
    /** A graph of the bundle cannot be loaded or lacks an input or output. */
    ANX_RUNTIME_GRAPH = 404,
    /** The provider does not reproduce the bundle's golden outputs. */
    ANX_RUNTIME_GOLDEN = 405,
    /** The system refuses threads: those of an engine while it is opened, or one that watches deadlines or compiles a JSON schema. */
    ANX_RUNTIME_THREADS = 406,
    /** A text cannot be tokenized. */
    ANX_PROMPT = 500,
    /** The bundle's tokenizer cannot be used. */
    ANX_PROMPT_TOKENIZER = 501,
    /** The question is empty, has more than 8,192 bytes, or holds a control token, a malformed box, or a box outside the image. */
    ANX_PROMPT_QUESTION = 502,
    /** The language model cannot answer; the message says why. */
    ANX_DECODER = 600,
    /** The JSON schema of a question cannot be used; the message and the cause say why. */
    ANX_DECODER_SCHEMA = 601,
    /** There is not enough memory for a KV cache: within the engine's memory_limit, or in the machine. */
    ANX_DECODER_MEMORY = 602,
    /** The question and the text before it leave no room for an answer. */
    ANX_DECODER_TOO_LONG = 603,
    /** A result cannot be written. */
    ANX_OUTPUT = 700,
    /** Bytes are not a saved study, are damaged, or are not of this bundle or version; or a study cannot be saved. */
    ANX_SAVED = 800
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum anx_status anx_status;
#else
typedef int32_t anx_status;
#endif
#endif

/** A side of the patient's body. */
enum anx_side
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif
 {
    /** None: an unpaired structure. */
    ANX_SIDE_NONE = 0,
    /** The patient's left. */
    ANX_SIDE_LEFT = 1,
    /** The patient's right. */
    ANX_SIDE_RIGHT = 2
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum anx_side anx_side;
#else
typedef int32_t anx_side;
#endif
#endif

/** How important a message is. Later versions may add values. */
enum anx_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif
 {
    /** A study or an answer: its size, times and flags. */
    ANX_LOG_DEBUG = 0,
    /** The opening of an engine. */
    ANX_LOG_INFO = 1,
    /** Something that may make results wrong or slow. */
    ANX_LOG_WARNING = 2,
    /** A failure that ONNX Runtime reports. The call that failed returns an error, too. */
    ANX_LOG_ERROR = 3
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum anx_log_level anx_log_level;
#else
typedef int32_t anx_log_level;
#endif
#endif

/** How severe a flag is. Later versions may add values. */
enum anx_severity
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif
 {
    /** For information. */
    ANX_SEVERITY_INFO = 0,
    /** Look at the image before the result is relied on. */
    ANX_SEVERITY_WARNING = 1
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum anx_severity anx_severity;
#else
typedef int32_t anx_severity;
#endif
#endif

/**
 * Whether what was perceived says the same as a sentence of an answer. It does not say that the answer fits the question. Later versions
 * may add values.
 */
enum anx_support
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif
 {
    /** Retrieved sentences say all that the sentence states. */
    ANX_SUPPORT_SUPPORTED = 0,
    /** A retrieved sentence says the opposite of something that the sentence states. */
    ANX_SUPPORT_CONTRADICTED = 1,
    /** The sentence states something that no retrieved sentence says. */
    ANX_SUPPORT_UNSUPPORTED = 2,
    /** The sentence states nothing that could be compared. */
    ANX_SUPPORT_NOT_ASSESSED = 3
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum anx_support anx_support;
#else
typedef int32_t anx_support;
#endif
#endif

/** What a structure's retrieved sentence says of a sentence of an answer. Later versions may add values. */
enum anx_relation
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif
 {
    /** It is the same sentence. */
    ANX_RELATION_REPEATS = 0,
    /** It states the same of the same place. */
    ANX_RELATION_AGREES = 1,
    /** It states the opposite. */
    ANX_RELATION_CONTRADICTS = 2
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum anx_relation anx_relation;
#else
typedef int32_t anx_relation;
#endif
#endif

/** Why an answer ended. Later versions may add values. */
enum anx_finish
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif
 {
    /** The model ended its turn: the answer is complete. */
    ANX_FINISH_END_OF_TURN = 0,
    /** The limit on tokens was reached: the answer is incomplete. */
    ANX_FINISH_MAX_TOKENS = 1,
    /** anx_ask_options.piece or a cancel handle stopped the answer. */
    ANX_FINISH_STOPPED = 2,
    /** A text of anx_ask_options.stop was reached; it is not part of the answer. */
    ANX_FINISH_STOP_TEXT = 3,
    /** The deadline of the options passed: the answer is incomplete. */
    ANX_FINISH_DEADLINE = 4,
    /** The KV cache could not grow within anx_engine_options.memory_limit: the answer is incomplete. */
    ANX_FINISH_MEMORY = 5
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum anx_finish anx_finish;
#else
typedef int32_t anx_finish;
#endif
#endif

/** What anx_ask_options.piece returns. */
enum anx_flow
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif
 {
    /** Decoding continues. */
    ANX_FLOW_CONTINUE = 0,
    /** The answer ends. */
    ANX_FLOW_STOP = 1
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum anx_flow anx_flow;
#else
typedef int32_t anx_flow;
#endif
#endif

/**
 * A field of an options struct that switches something on or off. Such a field is a size_t, like its neighbours, and takes one of
 * these values; any other fails with ANX_INVALID_ARGUMENT.
 */
enum anx_switch
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif
 {
    /** On or off, as the field's description says. */
    ANX_SWITCH_DEFAULT = 0,
    /** On. */
    ANX_SWITCH_ON = 1,
    /** Off. */
    ANX_SWITCH_OFF = 2
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum anx_switch anx_switch;
#else
typedef int32_t anx_switch;
#endif
#endif

/** What the smallest and the largest pixel value look like: DICOM's photometric interpretation. */
enum anx_photometric
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif
 {
    /** 0 is black, as air in a radiograph; the largest value is white. */
    ANX_PHOTOMETRIC_MONOCHROME2 = 0,
    /** 0 is white; the largest value is black. */
    ANX_PHOTOMETRIC_MONOCHROME1 = 1
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum anx_photometric anx_photometric;
#else
typedef int32_t anx_photometric;
#endif
#endif

/** An answer of the language model. It never changes, so threads may share it. It does not need its study or engine. */
typedef struct anx_answer anx_answer;

/** Bytes that a call made. Owned by the caller, free them with anx_bytes_free. */
typedef struct anx_bytes anx_bytes;

/**
 * Stops a call from any thread. Owned by the caller, who frees it with anx_cancel_free, at any time and in any order.
 *
 * The handle of a study, from anx_study_cancel_handle, stops one ask or save of that study: the one that is running, or else the next one.
 * Any handle, from anx_cancel_new or of a study, stops all calls that are given it: those that make studies, by
 * anx_perceive_options.cancel, and those that open or verify a bundle, by anx_engine_options.cancel.
 */
typedef struct anx_cancel anx_cancel;

/** An opened bundle on a provider. Any number of threads may use it at once. */
typedef struct anx_engine anx_engine;

/** Why a call failed. Owned by the caller, who frees it with anx_error_free. It never changes, so threads may share it. */
typedef struct anx_error anx_error;

/**
 * One radiograph with what was perceived in it, and its conversation. One thread at a time asks it: a call that comes while another is
 * running fails with ANX_BUSY. Any thread may read what was perceived at any time, and make documents
 * of it. Studies of the same engine are asked side by side.
 */
typedef struct anx_study anx_study;

/** What anx_verify_bundle found: the bundle's name, hash and size. It never changes, so threads may share it. */
typedef struct anx_verified_bundle anx_verified_bundle;

/**
 * Receives what an engine does, one message a call: when it is opened, the provider and why it was chosen, the version and path of ONNX
 * Runtime, and seconds of each step; of each study its size, times and codes of flags; of each answer its tokens, times and why it ended;
 * warnings; warnings and errors of ONNX Runtime. A message holds no data of patients: no names of files, texts, findings or pixels.
 * A radiograph is named by the first 12 digits of its SHA-256.
 *
 * message: one line, UTF-8, NUL-terminated, valid during this call only; its wording may change. length: its bytes without the NUL.
 * user_data: anx_engine_options.log_user_data. Any thread may call it, also several at once. The engine waits for it. It must return
 * normally: no exception, no longjmp. Of the library's functions it may call anx_cancel_request.
 */
typedef void (*anx_log_callback)(anx_log_level level, const char *message, size_t length, void *user_data);

/** Frees what user_data points to. */
typedef void (*anx_free_callback)(void *user_data);

/**
 * Receives how far a call has come. phase: what the call is doing, NUL-terminated, valid during this call only. done: how much of the
 * phase is done, 0 to total; it never decreases within a phase. total: how much there is to do in the phase. user_data: progress_user_data
 * of the options.
 *
 * Phases: "hashes", bytes of the bundle's files whose hashes are compared; "sentences", the check of the sentence database, 1 of 1;
 * "graphs", graphs that are loaded; "golden_check", graphs that the golden input ran through; "perceive", radiographs that are perceived
 * or failed. Later versions may add some. A phase begins with 0, and one with nothing to do may be left out.
 *
 * It is called during the call only, by one thread at a time, which may be another than the caller's. The call waits for it. It must
 * return normally: no exception, no longjmp. Of the library's functions it may call anx_cancel_request.
 */
typedef void (*anx_progress_callback)(const char *phase, uint64_t done, uint64_t total, void *user_data);

/**
 * Options of anx_engine_open. Set struct_size to sizeof(anx_engine_options) and everything else to zero but what you want to
 * change. Strings are copied.
 */
typedef struct anx_engine_options {
    /** sizeof(anx_engine_options). */
    size_t struct_size;
    /**
     * Where to compute: "auto" (or NULL), "cpu", "cuda", "cuda:N", "tensorrt", "tensorrt:N", N being the device's
     * number. "auto" takes CUDA if it works and the CPU otherwise, see anx_engine_note; another provider that cannot run is an error.
     */
    const char *provider;
    /**
     * Number of CPU threads that one caller computes with, for the graphs and for the steps before and after them: 1 to the number of
     * cores that the process may use, or 0 for all of them. More are ANX_INVALID_ARGUMENT. Opening takes up to three for a moment.
     * Callers of an engine with one thread compute side by side; callers of an engine with several threads share them.
     */
    size_t threads;
    /**
     * Path of ONNX Runtime's library, or NULL: then it is searched for by the environment variable ORT_DYLIB_PATH, beside
     * libanatomix.so (the file itself, if that is reached by a link), beside the program, in "../lib" of the program's folder, and on
     * the system's search path. A process loads one library and keeps it; a later engine that names another one is an error.
     */
    const char *library;
    /**
     * How many bytes the KV caches of all studies may take together, or 0 for no limit; see anx_engine_study_bytes.
     * A question that would need more fails with ANX_DECODER_MEMORY; an answer that comes to need more ends with ANX_FINISH_MEMORY.
     */
    size_t memory_limit;
    /**
     * An anx_switch, by default on: opening runs the bundle's golden input on the provider and compares the outputs. Switched off,
     * opening is faster, but a provider that computes wrong results goes unnoticed: only for a bundle that was opened before with
     * this library on this machine.
     */
    size_t golden_check;
    /**
     * An anx_switch, by default on: prompt look-up decoding, by which one run of the decoder verifies several tokens. The answers are
     * the same either way.
     */
    size_t look_up;
    /** Receives messages about what the engine does, or NULL. It may be called until the engine and the last of its studies are freed. */
    anx_log_callback log;
    /** Handed to log as it is. */
    void *log_user_data;
    /**
     * Called once with log_user_data, or NULL: when log will not be called any more, or when anx_engine_open fails. Any thread may call
     * it. It is not called if struct_size is wrong.
     */
    anx_free_callback log_free;
    /**
     * A public key of minisign, or NULL: the text of its .pub file, or the second line of that file. With a key, only a bundle is opened
     * whose manifest is signed by the owner of the key, and the hashes of all its files are compared, however large they are.
     * They are opened again to be used: nobody else may be able to write into the folder meanwhile.
     */
    const char *public_key;
    /**
     * The cost that look-up assumes for one more draft token in a run of the decoder, relative to a run of one token; greater than 0, at
     * most 1. 0 (recommended) measures it while the engine decodes. With a given cost, anx_answer_run_count and the last digits of
     * log probabilities do not depend on the machine's speed, but look-up may take more time than it saves.
     */
    double draft_cost;
    /**
     * Deadline in milliseconds after the call begins; 0 means no deadline. If you compute a remaining time, pass at least 1. A call that
     * is not finished by then fails with ANX_DEADLINE, between two of its parts: a mebibyte of a file that is hashed, a graph that is
     * loaded, a run of the golden input.
     */
    size_t deadline_ms;
    /**
     * A handle from anx_cancel_new, or NULL. A call that is not finished when anx_cancel_request is called fails with ANX_STOPPED, where a
     * deadline would end it.
     */
    const struct anx_cancel *cancel;
    /** Receives how far the call has come, or NULL. */
    anx_progress_callback progress;
    /** Handed to progress as it is. */
    void *progress_user_data;
} anx_engine_options;

/** Options of anx_verify_bundle. Set struct_size to sizeof(anx_verify_options) and everything else to zero but what you want to change. */
typedef struct anx_verify_options {
    /** sizeof(anx_verify_options). */
    size_t struct_size;
    /**
     * A public key of minisign, or NULL: as anx_engine_options.public_key. With a key, the manifest has to be signed by the key's owner.
     */
    const char *public_key;
    /**
     * Deadline in milliseconds after the call begins; 0 means no deadline. If you compute a remaining time, pass at least 1. A call that
     * is not finished by then fails with ANX_DEADLINE, after the mebibyte of a file that it is hashing.
     */
    size_t deadline_ms;
    /**
     * A handle from anx_cancel_new, or NULL. A call that is not finished when anx_cancel_request is called fails with ANX_STOPPED, where a
     * deadline would end it.
     */
    const struct anx_cancel *cancel;
    /** Receives how far the call has come, or NULL. */
    anx_progress_callback progress;
    /** Handed to progress as it is. */
    void *progress_user_data;
} anx_verify_options;

/**
 * A box in pixels of the original image: origin at its top-left corner, x right, y down. x0 <= x1 and y0 <= y1 unless
 * the study carries a flag on degenerate boxes. This struct never grows.
 */
typedef struct anx_box {
    /** Left edge. */
    float x0;
    /** Top edge. */
    float y0;
    /** Right edge. */
    float x1;
    /** Bottom edge. */
    float y1;
} anx_box;

/** An anatomical structure with its bounding box and the most similar sentence of the bundle's database. */
typedef struct anx_structure {
    /** The structure's index, 0 to 35, the same in every bundle. */
    size_t index;
    /** The structure's name; left and right are the patient's, whatever the image shows. */
    const char *name;
    /** Its bounding box. */
    struct anx_box bounds;
    /** The sentence. */
    const char *sentence;
    /** Cosine similarity of the sentence to the structure, -1 to 1; not calibrated. */
    float similarity;
    /**
     * Similarity minus that of the second-best sentence; with a single sentence there was no choice, and it is similarity + 1.
     * 0 to 2; near 0 the choice between the two is arbitrary.
     */
    float margin;
} anx_structure;

/** An image label with its score. */
typedef struct anx_label {
    /** The label as CheXpert names it, such as "Pleural Effusion". */
    const char *name;
    /** 0 to 1; not calibrated, so not a probability. */
    float score;
} anx_label;

/** A reason not to trust a result. */
typedef struct anx_flag {
    /**
     * A stable name: "mirrored", "near_constant", "degenerate_boxes", "low_margin", "not_frontal", "not_chest",
     * "for_processing", "colour", "damaged_pixels"; later versions may add some.
     */
    const char *code;
    /** How severe it is. */
    anx_severity severity;
    /** A sentence for a person. */
    const char *message;
} anx_flag;

/** The time of a step. */
typedef struct anx_timing {
    /** The step: "preprocess", "perceive", "retrieve" of a study; "prefill", "decode", "total" of an answer. */
    const char *step;
    /** Wall-clock time in milliseconds. */
    double milliseconds;
} anx_timing;

/** Versions, settings and hashes that a result depends on; keep it with the result. */
typedef struct anx_provenance {
    /** Version of the library. */
    const char *sdk;
    /** The bundle's name. */
    const char *bundle;
    /** SHA-256 of the bundle's manifest, which holds those of all its files; hexadecimal. */
    const char *bundle_sha256;
    /** Where graphs were computed, such as "cpu" or "cuda:0". */
    const char *provider;
    /** How weights are stored. */
    const char *precision;
    /**
     * SHA-256 of the input file, in hexadecimal. If there was no file, that of a line of text, "pixels WIDTH x HEIGHT x BITS" and a line
     * feed, and of the pixels after it: row by row without gaps, 8 or 16 bits each, scaled so that the largest value has all bits set,
     * little-endian. For ANX_PHOTOMETRIC_MONOCHROME1 it is that of a line of text, "inverted HASH" and a line feed, with the hash of the
     * same pixels.
     */
    const char *input_sha256;
    /**
     * The options that the answer was decoded with: how tokens were chosen, the form of the answer, the largest number of its tokens, stop
     * texts and deadline if there were any, and whether prompt look-up was on, for example
     * "greedy, grounded, max_tokens 512, look_up on". A study has those of a question with default options.
     */
    const char *decoding;
    /** How scores and similarities may be interpreted: "uncalibrated". */
    const char *scores;
    /** Intended use of the results: "research use, not a medical device". */
    const char *intended_use;
    /** Version of the ONNX Runtime that computed the graphs, such as "1.31.1". */
    const char *onnx_runtime;
    /**
     * Which of the VOI LUTs and windows of a DICOM file's header its pixels are displayed with, counted from 1. This and what follows is
     * written as in the header, several values with a backslash between; "" if the file does not have it, or there was none.
     */
    const char *window;
    /** Burned In Annotation (0028,0301): "YES" or "NO". */
    const char *burned_in_annotation;
    /** Lossy Image Compression (0028,2110): "01" if the pixels were compressed with losses at any time, "00" if not. */
    const char *lossy_image_compression;
    /** Lossy Image Compression Ratio (0028,2112) of each compression. */
    const char *lossy_image_compression_ratio;
    /** Lossy Image Compression Method (0028,2114) of each compression, for example "ISO_10918_1". */
    const char *lossy_image_compression_method;
} anx_provenance;

/**
 * Options of the calls that make studies of radiographs. Set struct_size to sizeof(anx_perceive_options) and everything else to zero but
 * what you want to change.
 */
typedef struct anx_perceive_options {
    /** sizeof(anx_perceive_options). */
    size_t struct_size;
    /**
     * Deadline in milliseconds after the call begins; 0 means no deadline. If you compute a remaining time, pass at least 1. A radiograph
     * that is not perceived by then fails with ANX_DEADLINE. Reading and preprocessing an image are not interrupted; the run of the
     * perception module is.
     */
    size_t deadline_ms;
    /**
     * A handle, usually from anx_cancel_new, or NULL. A radiograph that is not perceived when anx_cancel_request is called fails with
     * ANX_STOPPED.
     */
    const struct anx_cancel *cancel;
    /**
     * An anx_switch, by default off: the study and its answers hold the radiograph, for overlays and anx_study_intensities. It takes up to
     * two bytes for each pixel, or the file's size, until the study and the last of its answers are freed.
     */
    size_t keep_radiograph;
    /** Receives how many radiographs are perceived, or NULL. */
    anx_progress_callback progress;
    /** Handed to progress as it is. */
    void *progress_user_data;
    /**
     * Which transform of the values of interest (VOI) a DICOM file is displayed with, counted from 1: first come the VOI LUTs of its
     * header, then its windows. 0 for the first. One that a file does not have fails with ANX_RADIOGRAPH. Pixels have none: pass 0 or 1.
     */
    size_t window;
    /**
     * An anx_switch, by default off: bright and dark are swapped, for a file that does not say its polarity, such as a PNG in which air is
     * bright. The polarity of DICOM files is read, and that of pixels is anx_pixels.photometric.
     */
    size_t inverted;
    /**
     * An anx_switch, by default off: the mirror image is perceived, for an image that is flagged as mirrored. Boxes are in pixels of the
     * mirror image, so no document that refers to the file can be made of such a study.
     */
    size_t mirrored;
} anx_perceive_options;

/**
 * An image in memory as grey pixels, as a display shows them: the caller has applied modality LUT, VOI LUT and window, and masked padding.
 * (anx_study_from_bytes does that for a DICOM file.) Set struct_size to sizeof(anx_pixels) and everything else that you do not need to
 * zero.
 */
typedef struct anx_pixels {
    /** sizeof(anx_pixels). */
    size_t struct_size;
    /** The pixels, row by row from the top, borrowed for the call: uint8_t, or uint16_t in the machine's byte order and aligned. */
    const void *values;
    /**
     * How many bytes can be read there, so that a mistake is noticed: from the first pixel to the last, with or without the gap after
     * the last row.
     */
    size_t size;
    /** Bytes from the beginning of a row to the beginning of the next, or 0 if there are no gaps between rows. */
    size_t stride;
    /** Pixels of a row, 32 to 20000. */
    uint32_t width;
    /** Number of rows, 32 to 20000. */
    uint32_t height;
    /** Bits that a pixel takes in memory: 8 or 16. */
    uint32_t bits_allocated;
    /**
     * Bits of a value, 1 to bits_allocated: the largest value is 2^bits_stored - 1, and an image with a larger one fails with
     * ANX_RADIOGRAPH. 0 for bits_allocated.
     */
    uint32_t bits_stored;
    /** An anx_photometric. */
    size_t photometric;
} anx_pixels;

/** A file that is in memory. This struct never grows. */
typedef struct anx_file {
    /** Its content. */
    const uint8_t *bytes;
    /** How many bytes. */
    size_t size;
    /** Stands for it in messages and as the study's name; NULL for "bytes". */
    const char *name;
} anx_file;

/**
 * Receives a streamed answer piece by piece. piece: UTF-8, NUL-terminated, whole characters, valid during this call only. length: its
 * bytes without the NUL. user_data: anx_ask_options.piece_user_data. Returns ANX_FLOW_CONTINUE (0) to continue; ANX_FLOW_STOP, and
 * any other number, ends the answer. It is called by the thread that asks. It must return normally: no exception, no longjmp. Of the
 * library's functions it may call anx_cancel_request; asking the same study from it fails with ANX_BUSY.
 */
typedef int (*anx_piece_callback)(const char *piece, size_t length, void *user_data);

/**
 * Options of anx_study_ask. Set struct_size to sizeof(anx_ask_options) and everything else to zero but what you want to
 * change.
 */
typedef struct anx_ask_options {
    /** sizeof(anx_ask_options). */
    size_t struct_size;
    /**
     * The question's task, or NULL for a question in free words. With a task, a text that is only a phrase or box is put into the
     * task's wording. Tasks: "report",
     * "classification", "abnormality_detection", "phrase_grounding", "anatomy_grounding", "grounded_diagnosis",
     * "grounded_captioning", "open_question", "closed_question".
     */
    const char *task;
    /** Largest number of tokens of the answer, or 0 for the default, 512. */
    size_t max_tokens;
    /** Receives the answer piece by piece as it is decoded, or NULL. */
    anx_piece_callback piece;
    /** Handed to piece as it is. */
    void *piece_user_data;
    /**
     * Sampling temperature: 0 for greedy decoding, which takes the most likely token; 1 samples by the model's probabilities; at most
     * 100.
     */
    double temperature;
    /** Samples among this many of the most likely tokens; 0 for all. */
    size_t top_k;
    /**
     * Samples among the smallest set of most likely tokens whose probabilities sum to at least this; greater than 0, at most 1; 0 for all.
     */
    double top_p;
    /**
     * Divides the positive logits of tokens that occur in the answer, and multiplies their negative ones, 0.01 to
     * 100; 0 or 1 for none.
     */
    double repetition_penalty;
    /** Seed of sampling: equal seeds give equal answers. */
    uint64_t seed;
    /**
     * Stop texts, UTF-8, stop_count of them and none of them NULL, or NULL: the answer ends before the first occurrence of any of them.
     * Empty ones are ignored.
     */
    const char *const *stop;
    /** How many stop texts there are. */
    size_t stop_count;
    /**
     * The answer ends with the tokens decoded so far after this many milliseconds, prefill included. 0 means no
     * deadline. If you compute a remaining time, pass at least 1.
     */
    size_t deadline_ms;
    /**
     * An anx_switch, by default off: the answer holds the log probability of each of its tokens, see
     * anx_answer_log_probabilities.
     */
    size_t log_probabilities;
    /**
     * An anx_switch, by default off: the question continues the study's conversation, so that the model sees the questions and
     * answers before it; see anx_study_turn_count. Off: it is asked of the radiograph alone.
     */
    size_t follow_up;
    /**
     * A JSON schema, UTF-8, of at most 65,536 bytes, or NULL: decoding is constrained to JSON that conforms to it, complete unless a
     * limit ends the answer; see anx_answer_finish. Bound strings (maxLength, pattern), arrays (maxItems) and numbers (maximum) in
     * the schema, or an unsure model may not stop. Numbers of the schema are at most 2^53 - 1 in magnitude, values of multipleOf have a
     * common multiple of at most 65,535 in units of their last decimal place, and few patterns apply to one text at once (allOf and the
     * like); another schema is refused. Properties come in the schema's order, with a space after each ',' and ':' and no other white
     * space between values. Boxes in the JSON are on a grid of 1024 over the letterboxed square, not in pixels. The model does not see
     * the schema: the question must say what the answer should contain.
     */
    const char *json_schema;
    /**
     * An anx_switch, by default off: decoding is not constrained, so that groundings may be malformed. Off: groundings are well
     * formed, or the answer is JSON. It cannot be on together with json_schema.
     */
    size_t unconstrained;
    /**
     * An anx_switch, by default off: the study is asked even if it is flagged "not_chest", "not_frontal" or "for_processing". Off:
     * asking such a study fails with ANX_RADIOGRAPH_FLAGGED, because the model was not made for such images.
     */
    size_t accept_flags;
} anx_ask_options;

/** A phrase of an answer with its bounding boxes. */
typedef struct anx_grounding {
    /** The phrase, as it occurs in the answer's text; empty for boxes without a phrase. */
    const char *phrase;
    /** Its boxes, box_count of them; borrowed from the answer. */
    const struct anx_box *boxes;
    /** How many boxes there are; 0 for a phrase that the model marked without a box. */
    size_t box_count;
} anx_grounding;

/** A structure whose retrieved sentence, or box, speaks for or against a sentence of an answer. This struct never grows. */
typedef struct anx_structure_evidence {
    /** The structure's index, 0 to 35, for anx_study_structure. */
    size_t index;
    /** Its name; left and right are the patient's. */
    const char *name;
    /** What it says of the answer's sentence. */
    anx_relation relation;
    /** Cosine similarity of the retrieved sentence, -1 to 1; not calibrated. */
    float similarity;
    /** Similarity minus that of the second-best sentence; with a single sentence there was no choice, and it is similarity + 1. */
    float margin;
    /** Its bounding box. */
    struct anx_box bounds;
} anx_structure_evidence;

/**
 * Where a sentence of an answer comes from: what the retrieved sentences of the structures that it is about say of it, compared word by
 * word, without a model. It compares the answer with what was perceived, and does not say that the answer fits the question.
 */
typedef struct anx_evidence {
    /** The sentence. */
    const char *sentence;
    /** Where it begins in anx_answer_text, in bytes. */
    size_t start;
    /** Where it ends. */
    size_t end;
    /** Whether what was perceived says the same. */
    anx_support support;
    /** Structures that speak for or against it, in index order, structure_count of them; borrowed from the answer. */
    const struct anx_structure_evidence *structures;
    /** How many structures there are. */
    size_t structure_count;
    /** Indices, for anx_answer_grounding, of the phrases that it grounds, grounding_count of them; borrowed from the answer. */
    const size_t *groundings;
    /** How many groundings there are. */
    size_t grounding_count;
    /** Mean probability of its tokens under the model, 0 to 1, not calibrated; NaN if it lies within a token of an earlier sentence. */
    float probability;
} anx_evidence;

/**
 * Options of anx_study_structured_report. Set struct_size to sizeof(anx_report_options) and everything else to zero but what you want to
 * change.
 */
typedef struct anx_report_options {
    /** sizeof(anx_report_options). */
    size_t struct_size;
    /** The time at which the results were made, as "YYYYMMDDhhmmss", or NULL for that of the radiograph. */
    const char *content_time;
    /**
     * An anx_switch, by default off: the report is a Comprehensive SR (1.2.840.10008.5.1.4.1.1.88.33), for viewers that do not know
     * Comprehensive 3D SR (1.2.840.10008.5.1.4.1.1.88.34). The content is the same.
     */
    size_t comprehensive_sr;
} anx_report_options;

/**
 * Options of anx_study_presentation_state, anx_study_secondary_capture and anx_study_fhir. Set struct_size to
 * sizeof(anx_document_options) and everything else to zero but what you want to change.
 */
typedef struct anx_document_options {
    /** sizeof(anx_document_options). */
    size_t struct_size;
    /** The time at which the results were made, as "YYYYMMDDhhmmss", or NULL for that of the radiograph. */
    const char *content_time;
} anx_document_options;

#ifdef __cplusplus
extern "C" {
#endif

/** The library's version, such as "0.1.0". The string is static. Cannot fail. */
const char *anx_version(void);

/**
 * The interface version that the loaded library implements; compare it with ANX_ABI_VERSION, which is the one that the
 * program was compiled against. Cannot fail.
 */
uint32_t anx_abi_version(void);

/** The status that the failed call returned; ANX_OK for NULL. */
anx_status anx_error_code(const struct anx_error *error);

/**
 * One line for a person: the path or argument, what is wrong with it and what to do. Control characters in names of files and the like are
 * written as \u{1b}, so that a terminal does not obey them. Empty for NULL. Borrowed
 * from the error. The wording may change between versions; programs decide by the code.
 */
const char *anx_error_message(const struct anx_error *error);

/**
 * What the operating system, ONNX Runtime or a parser said, on one line, from the nearest cause to the innermost one; the message does
 * not repeat it. NULL if the error has no cause, and for NULL. Borrowed from the error.
 */
const char *anx_error_cause(const struct anx_error *error);

/** Frees an error and its strings. NULL does nothing. */
void anx_error_free(struct anx_error *error);

/** The name of a structure, as anx_structure.name has it. The string is static; NULL if index is above 35. */
const char *anx_structure_name(size_t index);

/** The name of an image label, as anx_label.name has it. The string is static; NULL if index is above 13. */
const char *anx_label_name(size_t index);

/** The name of a task, as anx_ask_options.task takes it. The string is static; NULL if index is above 8. */
const char *anx_task_name(size_t index);

/** The side of a structure, the patient's, in a mirrored image as well; ANX_SIDE_NONE if it is unpaired or index is above 35. */
anx_side anx_structure_side(size_t index);

/** The index of the same structure on the other side of the body; the given index if it is unpaired or above 35. */
size_t anx_structure_counterpart(size_t index);

/**
 * Makes a handle that stops perceiving, see anx_perceive_options.cancel, and opening and verifying bundles, see
 * anx_engine_options.cancel. One handle may be given to several calls.
 *
 * cancel: takes the handle, which the caller frees with anx_cancel_free; NULL on failure.
 * Fails with ANX_INVALID_ARGUMENT.
 */
anx_status anx_cancel_new(struct anx_cancel **cancel, struct anx_error **error);

/**
 * Stops calls. Returns at once; cannot fail. For NULL it does nothing.
 *
 * With the handle of a study: the ask that is running returns ANX_OK with the tokens decoded so far, perhaps none, and
 * ANX_FINISH_STOPPED, after the current run of the decoder (a long prefill takes several runs). An anx_study_save that prefills the
 * context fails with ANX_STOPPED. If none is running, the next one ends so at once. (A save with nothing left to compute is not stopped.)
 * The call consumes the request. After it ends none is pending, even if the request came too late to stop it. A call that fails because of
 * its arguments or its question consumes none.
 * Calls that were given the handle fail with ANX_STOPPED, perceiving within one operator of the perception module, opening and verifying
 * between two of their parts. So do all that are given it later, until anx_cancel_reset, or, with the handle of a study, until an ask or a
 * save of the study consumes the request.
 */
void anx_cancel_request(const struct anx_cancel *cancel);

/** Withdraws a pending request. It does not resume calls that were already stopped. Cannot fail. For NULL it does nothing. */
void anx_cancel_reset(const struct anx_cancel *cancel);

/** Frees a cancel handle; the study is not touched. NULL does nothing. */
void anx_cancel_free(struct anx_cancel *cancel);

/**
 * Opens a bundle: checks its files, loads ONNX Runtime and the graphs, and runs the bundle's golden input.
 *
 * bundle: path of the bundle's folder. options: NULL for the defaults. engine: takes the new engine, which the caller
 * frees with anx_engine_free; NULL on failure.
 * Fails with ANX_INVALID_ARGUMENT, ANX_STOPPED, ANX_DEADLINE, or in the hundreds of ANX_BUNDLE, ANX_RETRIEVAL, ANX_RUNTIME, ANX_PROMPT,
 * ANX_DECODER.
 * Takes from less than a second to minutes, depending on the bundle's size. The files of a bundle larger than 256 MiB are compared by size
 * only, unless options has a public_key; anx_verify_bundle compares their hashes. Files are mapped: none may be changed or cut
 * while an engine is open. The golden check needs a KV cache, so a memory_limit that is too small for it fails with ANX_DECODER_MEMORY.
 */
anx_status anx_engine_open(const char *bundle,
                           const struct anx_engine_options *options,
                           struct anx_engine **engine,
                           struct anx_error **error);

/** Frees an engine. Its studies can still be used; they keep what they need. NULL does nothing. */
void anx_engine_free(struct anx_engine *engine);

/**
 * The bundle's name, with control characters written as \u{1b}. Borrowed from the engine; NULL for NULL.
 */
const char *anx_engine_bundle_name(const struct anx_engine *engine);

/** SHA-256 of the bundle's manifest in hexadecimal, which identifies the bundle. Borrowed from the engine; NULL for NULL. */
const char *anx_engine_bundle_sha256(const struct anx_engine *engine);

/** The provider that the engine computes on, never "auto". Borrowed from the engine; NULL for NULL. */
const char *anx_engine_provider(const struct anx_engine *engine);

/**
 * Bytes that the KV cache of a study takes at most for this many tokens: those of its context, and of the questions and answers of its
 * conversation, each answer with the most tokens that it may have (anx_ask_options.max_tokens, by default 512). A study takes them from
 * its first ask, its saving or its loading on until it is freed. The number does not decrease with more tokens, and stays the same from
 * the model's longest context on. If memory_limit is at least the sum of these values over all studies, no ask fails and no answer ends
 * for lack of KV cache. anx_study_cache_bytes is what one study takes exactly. 0 for NULL.
 */
size_t anx_engine_study_bytes(const struct anx_engine *engine,
                              size_t tokens);

/**
 * The largest number of radiographs that one run of the perception module takes. anx_studies_from_files and its like open and perceive
 * this many at a time. 0 for NULL.
 */
size_t anx_engine_batch_size(const struct anx_engine *engine);

/** How many notes there are on where graphs are computed; 0 for NULL. */
size_t anx_engine_note_count(const struct anx_engine *engine);

/**
 * A note on where graphs are computed, a line such as why a GPU is not used, or that the bundle was checked on other kinds of
 * processors only. Borrowed from the engine; NULL if index is not below anx_engine_note_count.
 */
const char *anx_engine_note(const struct anx_engine *engine,
                            size_t index);

/**
 * Verifies a bundle without opening an engine: compares the hashes of all its files, however large they are, and checks its whole
 * sentence database. ONNX Runtime is not needed.
 *
 * bundle: path of the bundle's folder. options: NULL for the defaults. verified: takes what was found, which the caller frees with
 * anx_verified_bundle_free; NULL on failure.
 * Fails with ANX_INVALID_ARGUMENT, ANX_STOPPED, ANX_DEADLINE, or in the hundreds of ANX_BUNDLE, ANX_RETRIEVAL.
 */
anx_status anx_verify_bundle(const char *bundle,
                             const struct anx_verify_options *options,
                             struct anx_verified_bundle **verified,
                             struct anx_error **error);

/**
 * The bundle's name, with control characters written as \u{1b}. Borrowed from the handle; NULL for NULL.
 */
const char *anx_verified_bundle_name(const struct anx_verified_bundle *verified);

/** SHA-256 of the bundle's manifest in hexadecimal, which identifies the bundle. Borrowed from the handle; NULL for NULL. */
const char *anx_verified_bundle_sha256(const struct anx_verified_bundle *verified);

/** How many files the manifest lists; 0 for NULL. */
size_t anx_verified_bundle_file_count(const struct anx_verified_bundle *verified);

/** Size of these files together in bytes; 0 for NULL. */
uint64_t anx_verified_bundle_bytes(const struct anx_verified_bundle *verified);

/** Frees what was verified; the bundle's files are not touched. NULL does nothing. */
void anx_verified_bundle_free(struct anx_verified_bundle *verified);

/**
 * Makes a handle that stops an ask or a save of this study from any thread, see anx_cancel_request; it may be made while one is running.
 *
 * cancel: takes the handle, which the caller frees with anx_cancel_free; NULL on failure.
 * Fails with ANX_INVALID_ARGUMENT.
 */
anx_status anx_study_cancel_handle(const struct anx_study *study,
                                   struct anx_cancel **cancel,
                                   struct anx_error **error);

/**
 * Frees a study; its answers and cancel handles stay valid. Must not be called while another call on the study is running. NULL does
 * nothing.
 */
void anx_study_free(struct anx_study *study);

/**
 * The file's path, or the name that was given, to be shown: bytes of a path that are not UTF-8 become U+FFFD, and control characters are
 * written as \u{1b} and the like. Borrowed from the study; NULL for NULL.
 */
const char *anx_study_name(const struct anx_study *study);

/** Width of the original image in pixels; 0 for NULL. */
uint32_t anx_study_width(const struct anx_study *study);

/** Height of the original image in pixels; 0 for NULL. */
uint32_t anx_study_height(const struct anx_study *study);

/** How many structures there are: 36; 0 for NULL. */
size_t anx_study_structure_count(const struct anx_study *study);

/**
 * A structure, by its index. Borrowed from the study; NULL if index is not below
 * anx_study_structure_count. Every structure has a box and a sentence, in the image or not: judge by similarity, margin
 * and flags.
 */
const struct anx_structure *anx_study_structure(const struct anx_study *study, size_t index);

/** How many values the embedding of a structure has; 0 for NULL. */
size_t anx_study_embedding_width(const struct anx_study *study);

/**
 * The embedding of a structure, anx_study_embedding_width values: what the sentences of the database are compared with. Borrowed from the
 * study; NULL if index is not below anx_study_structure_count.
 */
const float *anx_study_embedding(const struct anx_study *study,
                                 size_t index);

/** How many image labels there are: 14; 0 for NULL. */
size_t anx_study_label_count(const struct anx_study *study);

/** An image label. Borrowed from the study; NULL if index is not below anx_study_label_count. */
const struct anx_label *anx_study_label(const struct anx_study *study, size_t index);

/** How many flags there are; 0 for NULL. */
size_t anx_study_flag_count(const struct anx_study *study);

/** A flag. Borrowed from the study; NULL if index is not below anx_study_flag_count. */
const struct anx_flag *anx_study_flag(const struct anx_study *study, size_t index);

/** How many steps were timed; 0 for NULL. */
size_t anx_study_timing_count(const struct anx_study *study);

/** The time of a step. Borrowed from the study; NULL if index is not below anx_study_timing_count. */
const struct anx_timing *anx_study_timing(const struct anx_study *study, size_t index);

/** Versions, settings and hashes that the study's results depend on. Borrowed from the study; NULL for NULL. */
const struct anx_provenance *anx_study_provenance(const struct anx_study *study);

/**
 * Opens a radiograph's file, DICOM, PNG or JPEG (its first bytes decide, not its name), and perceives it: boxes, sentences, labels, flags.
 *
 * path: the file. options: NULL for the defaults. study: takes the new study, which the caller frees with anx_study_free; NULL on failure.
 * Fails with ANX_INVALID_ARGUMENT, ANX_STOPPED, ANX_DEADLINE, or in the hundreds of ANX_RADIOGRAPH, ANX_RETRIEVAL, ANX_RUNTIME,
 * ANX_PROMPT. The engine can be used as before after every failure.
 * Does not refuse an image that is not a frontal chest radiograph: look at the flags, which say so if the header does. Asking
 * such a study has to be allowed, see anx_ask_options.accept_flags.
 */
anx_status anx_study_from_file(const struct anx_engine *engine,
                               const char *path,
                               const struct anx_perceive_options *options,
                               struct anx_study **study,
                               struct anx_error **error);

/**
 * Like anx_study_from_file for a file that is in memory already.
 *
 * bytes, size: the file's content, borrowed for the call. name: stands for it in messages and as the study's name, or
 * NULL.
 */
anx_status anx_study_from_bytes(const struct anx_engine *engine,
                                const uint8_t *bytes,
                                size_t size,
                                const char *name,
                                const struct anx_perceive_options *options,
                                struct anx_study **study,
                                struct anx_error **error);

/**
 * Like anx_study_from_file for an image that is in memory as grey pixels. There is no header, hence no flag that rests on one.
 *
 * pixels: the image.
 */
anx_status anx_study_from_pixels(const struct anx_engine *engine,
                                 const struct anx_pixels *pixels,
                                 const struct anx_perceive_options *options,
                                 struct anx_study **study,
                                 struct anx_error **error);

/**
 * Opens the files of several radiographs and perceives them together: the studies are those that anx_study_from_file
 * makes of each. Files are read in parallel, and one run of the perception module takes several images: 8, or fewer if the bundle's input
 * is large. Any number of files may be given.
 *
 * paths: the files, borrowed for the call. count: how many there are; with 0 nothing happens. options: NULL for the defaults; a stop or
 * a deadline ends the whole call: studies that are made by then are given, and all others fail.
 * studies: room for count pointers; takes the new studies in the order of the paths, each of which the caller frees with
 * anx_study_free; NULL for each file that failed. errors: NULL, or room for count pointers; takes why each file failed, which
 * the caller frees with anx_error_free; NULL for each study that was made.
 * A file that fails does not affect the others: their studies are returned and belong to the caller, whatever the call returns. It
 * returns ANX_OK if all studies were made, else the status of the first file that failed, and error is about that file. With an argument
 * that cannot be used it returns ANX_INVALID_ARGUMENT, which no file fails with: there are no studies, and all errors are NULL.
 */
anx_status anx_studies_from_files(const struct anx_engine *engine,
                                  const char *const *paths,
                                  size_t count,
                                  const struct anx_perceive_options *options,
                                  struct anx_study **studies,
                                  struct anx_error **errors,
                                  struct anx_error **error);

/**
 * Like anx_studies_from_files for files that are in memory already: the studies are those that anx_study_from_bytes makes of
 * each.
 *
 * files: their contents, borrowed for the call.
 */
anx_status anx_studies_from_bytes(const struct anx_engine *engine,
                                  const struct anx_file *files,
                                  size_t count,
                                  const struct anx_perceive_options *options,
                                  struct anx_study **studies,
                                  struct anx_error **errors,
                                  struct anx_error **error);

/**
 * Like anx_studies_from_files for images that are in memory as grey pixels: the studies are those that anx_study_from_pixels makes of
 * each.
 *
 * images: count pointers to images.
 */
anx_status anx_studies_from_pixels(const struct anx_engine *engine,
                                   const struct anx_pixels *const *images,
                                   size_t count,
                                   const struct anx_perceive_options *options,
                                   struct anx_study **studies,
                                   struct anx_error **errors,
                                   struct anx_error **error);

/**
 * Asks the study a question and waits for the answer. The first ask prefills the study's context, which stays in the KV cache. The model
 * does not see earlier questions and answers, unless options.follow_up is on.
 *
 * question: UTF-8; a region is written <box>(x0,y0),(x1,y1)</box> in pixels of the original image. NULL or empty for the tasks
 * "report", "classification" and "abnormality_detection", which have an instruction of their own and take no question.
 * options: NULL for the defaults. answer: takes the answer, which the caller frees with
 * anx_answer_free; NULL on failure. An answer that was stopped or is incomplete is a success; see anx_answer_finish.
 * Fails with ANX_INVALID_ARGUMENT, ANX_BUSY, ANX_RADIOGRAPH_FLAGGED, or in the hundreds of ANX_RUNTIME, ANX_PROMPT, ANX_DECODER.
 * Does not guarantee that the answer is true, complete or grounded; research use, not a medical device.
 */
anx_status anx_study_ask(struct anx_study *study,
                         const char *question,
                         const struct anx_ask_options *options,
                         struct anx_answer **answer,
                         struct anx_error **error);

/**
 * Asks the study several questions at once and waits for all answers. They are decoded together and share the KV cache of the context, so
 * that each costs little more than its own tokens. Greedy answers are those of anx_study_ask. Either all questions are follow-ups or none
 * is. If none is, the study has no conversation afterwards: the questions are not turns of it, and earlier turns are removed.
 *
 * questions: at most 1024, each as for anx_study_ask; NULL is not allowed, so pass an empty text for a task that has its own instruction.
 * With a count of 0 nothing happens. options: NULL for the defaults of all, or count pointers,
 * each NULL or the options of that question, whose piece receives the pieces of that answer and can end that answer only.
 * answers: room for count answers, which the caller frees with anx_answer_free; all NULL on failure, also if count is too large.
 * Fails as anx_study_ask does, with the first question that fails, whose index the message names; then there are no answers.
 */
anx_status anx_study_ask_many(struct anx_study *study,
                              const char *const *questions,
                              const struct anx_ask_options *const *options,
                              size_t count,
                              struct anx_answer **answers,
                              struct anx_error **error);

/**
 * How many questions the study's conversation has: the last one that was not a follow-up, and the follow-ups after it. 0 for NULL, and
 * also while an ask is running, whatever the conversation holds.
 */
size_t anx_study_turn_count(const struct anx_study *study);

/**
 * Bytes that the KV cache of this study takes for its context and this many tokens after it: those of the questions and answers of its
 * conversation, or of all questions of one anx_study_ask_many with their answers, each answer with the most tokens that it may have.
 * Without a memory_limit a cache that has to grow takes up to a quarter more. 0 for NULL, and also while an ask is running.
 */
size_t anx_study_cache_bytes(const struct anx_study *study,
                             size_t tokens);

/**
 * Removes all questions and answers from the study's conversation but the first turns; the next follow-up continues from there. The
 * context stays in the KV cache.
 * Fails with ANX_INVALID_ARGUMENT, ANX_BUSY.
 */
anx_status anx_study_rewind(struct anx_study *study,
                            size_t turns,
                            struct anx_error **error);

/**
 * Makes bytes of the study, with its perception and its prefilled context but without its conversation, for anx_study_load in this or
 * another process with the same bundle. The context is prefilled first if no question was asked yet.
 *
 * bytes: takes the bytes, which the caller frees with anx_bytes_free; NULL on failure. They are not encrypted. They hold the patient's
 * name, number, birth date and sex and the UIDs of study and image (of a DICOM file), the file's path as it was given, boxes, flags and
 * computed features: protect them like the radiograph.
 * Fails with ANX_INVALID_ARGUMENT, ANX_BUSY, ANX_STOPPED, ANX_SAVED, or in the hundreds of ANX_RUNTIME and ANX_DECODER; on failure the
 * study is unchanged.
 */
anx_status anx_study_save(struct anx_study *study,
                          struct anx_bytes **bytes,
                          struct anx_error **error);

/**
 * Makes a study from the bytes of anx_study_save. Nothing is perceived or prefilled again, so the first question costs its own tokens
 * only. The study does not hold the radiograph, so anx_study_overlay cannot draw it.
 *
 * bytes, size: all bytes, with the checksum at their end; borrowed for the call. study: takes the new study, which the caller frees with
 * anx_study_free; NULL on failure.
 * Fails with ANX_INVALID_ARGUMENT, ANX_SAVED, or in the hundreds of ANX_RETRIEVAL, ANX_RUNTIME, ANX_PROMPT, ANX_DECODER.
 */
anx_status anx_study_load(const struct anx_engine *engine,
                          const uint8_t *bytes,
                          size_t size,
                          struct anx_study **study,
                          struct anx_error **error);

/**
 * Whether bytes begin as those of anx_study_save do: 1 or 0. Bytes that pass this test may still be damaged;
 * anx_study_load checks that. 0 for NULL.
 *
 * bytes, size: as those of anx_study_load.
 */
int anx_is_saved_study(const uint8_t *bytes, size_t size);

/** The first of the bytes. Borrowed from them; NULL for NULL. */
const uint8_t *anx_bytes_data(const struct anx_bytes *bytes);

/** How many bytes there are; 0 for NULL. */
size_t anx_bytes_size(const struct anx_bytes *bytes);

/** Frees bytes. NULL does nothing. */
void anx_bytes_free(struct anx_bytes *bytes);

/**
 * The answer as readable text, without tags and coordinates; the pieces that anx_ask_options.piece received add up to it.
 * Borrowed from the answer; NULL for NULL.
 */
const char *anx_answer_text(const struct anx_answer *answer);

/**
 * The answer as the model wrote it: with tags, and with boxes on a grid of 1024 over the letterboxed square, not in pixels. Borrowed from
 * the answer; NULL for NULL.
 */
const char *anx_answer_raw(const struct anx_answer *answer);

/** The question that was answered. Borrowed from the answer; NULL for NULL. */
const char *anx_answer_question(const struct anx_answer *answer);

/** The name of the question's task, or NULL if none was given. Borrowed from the answer. */
const char *anx_answer_task(const struct anx_answer *answer);

/** How many phrases of the answer are grounded; 0 for NULL. */
size_t anx_answer_grounding_count(const struct anx_answer *answer);

/**
 * A phrase with its boxes, in the order of the text. Borrowed from the answer; NULL if index is not below
 * anx_answer_grounding_count.
 */
const struct anx_grounding *anx_answer_grounding(const struct anx_answer *answer, size_t index);

/** How many sentences the answer has; 0 for an answer in JSON, and for NULL. */
size_t anx_answer_evidence_count(const struct anx_answer *answer);

/**
 * Where a sentence comes from, in the order of the text. Borrowed from the answer; NULL if index is not below
 * anx_answer_evidence_count.
 */
const struct anx_evidence *anx_answer_evidence(const struct anx_answer *answer, size_t index);

/** How many tokens were decoded, those of tags and coordinates included; 0 for NULL. */
size_t anx_answer_token_count(const struct anx_answer *answer);

/**
 * How many tokens were prefilled for this answer: those of the question, and those of the study's context if it was not in the KV cache
 * yet; 0 for NULL.
 */
size_t anx_answer_prefilled_count(const struct anx_answer *answer);

/** How many runs of the decoder these tokens took, without prefill: fewer than tokens if draft tokens were accepted; 0 for NULL. */
size_t anx_answer_run_count(const struct anx_answer *answer);

/**
 * Natural logarithm of the probability of each token under the model, anx_answer_token_count values of at most 0; not calibrated. Borrowed
 * from the answer; NULL if the options did not ask for them, and for NULL.
 */
const float *anx_answer_log_probabilities(const struct anx_answer *answer);

/** Why the answer ended; ANX_FINISH_STOPPED for NULL. */
anx_finish anx_answer_finish(const struct anx_answer *answer);

/** How many flags there are: those of the study; 0 for NULL. */
size_t anx_answer_flag_count(const struct anx_answer *answer);

/** A flag. Borrowed from the answer; NULL if index is not below anx_answer_flag_count. */
const struct anx_flag *anx_answer_flag(const struct anx_answer *answer, size_t index);

/** How many steps were timed; 0 for NULL. */
size_t anx_answer_timing_count(const struct anx_answer *answer);

/** The time of a step. Borrowed from the answer; NULL if index is not below anx_answer_timing_count. */
const struct anx_timing *anx_answer_timing(const struct anx_answer *answer, size_t index);

/** Versions, settings and hashes that the answer depends on. Borrowed from the answer; NULL for NULL. */
const struct anx_provenance *anx_answer_provenance(const struct anx_answer *answer);

/** Frees an answer and everything borrowed from it. NULL does nothing. */
void anx_answer_free(struct anx_answer *answer);

/**
 * Makes a DICOM structured report (TID 1500) of the study and of answers about it, in the study that the radiograph belongs to: a region
 * for each structure and each box of the answers, questions and answers, flags and scores. Equal results give equal bytes.
 *
 * answers: count pointers to answers about this radiograph and from this bundle; may be NULL if count is 0. options: NULL for the
 * defaults. bytes: takes a DICOM file, which the caller frees with anx_bytes_free; NULL on failure. It holds patient data: protect it
 * as you protect the radiograph.
 * Fails with ANX_INVALID_ARGUMENT, ANX_OUTPUT: the radiograph is not a DICOM file, or its header lacks a valid UID of
 * study, series or image, or has a name or number of the patient that is not valid (it may have none).
 */
anx_status anx_study_structured_report(const struct anx_study *study,
                                       const struct anx_answer *const *answers,
                                       size_t count,
                                       const struct anx_report_options *options,
                                       struct anx_bytes **bytes,
                                       struct anx_error **error);

/**
 * Makes a DICOM Grayscale Softcopy Presentation State (1.2.840.10008.5.1.4.1.1.11.1) of the study and of answers about it, in the study
 * that the radiograph belongs to: the boxes of the structures and of the answers with their labels, which viewers draw over the image.
 * Equal results give equal bytes.
 *
 * answers: count pointers to answers about this radiograph and from this bundle; may be NULL if count is 0. options: NULL for the
 * defaults. bytes: takes a DICOM file, which the caller frees with anx_bytes_free; NULL on failure. It holds patient data: protect it
 * as you protect the radiograph.
 * Fails with ANX_INVALID_ARGUMENT, ANX_OUTPUT: the radiograph is not a DICOM file, or its header lacks a valid UID of
 * study, series or image, or has a name or number of the patient that is not valid (it may have none).
 */
anx_status anx_study_presentation_state(const struct anx_study *study,
                                        const struct anx_answer *const *answers,
                                        size_t count,
                                        const struct anx_document_options *options,
                                        struct anx_bytes **bytes,
                                        struct anx_error **error);

/**
 * Makes a DICOM Secondary Capture image (1.2.840.10008.5.1.4.1.1.7) in the study that the radiograph belongs to: the picture that
 * anx_study_overlay or anx_answer_overlay draws, in RGB of 8 bits, for viewers that show neither structured reports nor presentation
 * states. Equal results give equal bytes.
 *
 * study: one that was made with anx_perceive_options.keep_radiograph. answer: the answer that is shown, or NULL for the structures of the
 * study. options: NULL for the defaults. bytes: takes a DICOM file, which the caller frees with anx_bytes_free; NULL on failure. It
 * shows the patient: protect it as you protect the radiograph.
 * Fails with ANX_INVALID_ARGUMENT, also if the study holds no radiograph, ANX_RADIOGRAPH_MEMORY, ANX_OUTPUT: the radiograph is
 * no DICOM file, its header lacks a valid UID or has an invalid patient, or the answer is about another one.
 */
anx_status anx_study_secondary_capture(const struct anx_study *study,
                                       const struct anx_answer *answer,
                                       const struct anx_document_options *options,
                                       struct anx_bytes **bytes,
                                       struct anx_error **error);

/**
 * Makes a FHIR R4 bundle of the study and of answers about it: a DiagnosticReport with an Observation for each structure, label, flag,
 * answer and box, and the Patient, ImagingStudy and Device that they refer to. Equal results give equal bytes.
 *
 * answers: count pointers to answers about this radiograph and from this bundle; may be NULL if count is 0. options: NULL for the
 * defaults. bytes: takes JSON in UTF-8, which the caller frees with anx_bytes_free; NULL on failure. It holds patient data: protect it
 * as you protect the radiograph.
 * Fails with ANX_INVALID_ARGUMENT, ANX_OUTPUT: the radiograph is not a DICOM file, or its header lacks a valid UID of
 * study, series or image, or has a name or number of the patient that is not valid (it may have none).
 */
anx_status anx_study_fhir(const struct anx_study *study,
                          const struct anx_answer *const *answers,
                          size_t count,
                          const struct anx_document_options *options,
                          struct anx_bytes **bytes,
                          struct anx_error **error);

/**
 * The study as JSON, the same as "anatomix perceive --json" prints: UTF-8 without line breaks.
 *
 * bytes: takes the JSON, which the caller frees with anx_bytes_free; NULL on failure. There is no NUL at the end: anx_bytes_size says
 * where that is.
 * Fails with ANX_INVALID_ARGUMENT.
 */
anx_status anx_study_json(const struct anx_study *study,
                          struct anx_bytes **bytes,
                          struct anx_error **error);

/**
 * The answer as JSON, the same as "anatomix ask --json" prints: UTF-8 without line breaks.
 *
 * bytes: as that of anx_study_json.
 * Fails with ANX_INVALID_ARGUMENT.
 */
anx_status anx_answer_json(const struct anx_answer *answer, struct anx_bytes **bytes, struct anx_error **error);

/**
 * Draws the radiograph with boxes of the main structures and of those with a finding, as "anatomix perceive --overlay" does.
 *
 * study: one that was made with anx_perceive_options.keep_radiograph. bytes: takes a PNG file, which the caller frees with
 * anx_bytes_free; NULL on failure. Its longest side has 1,100 to 1,650 pixels. It shows the patient, and the name that the study has:
 * protect it as you protect the radiograph.
 * Fails with ANX_INVALID_ARGUMENT, also if the study holds no radiograph, ANX_RADIOGRAPH_MEMORY, ANX_OUTPUT.
 */
anx_status anx_study_overlay(const struct anx_study *study,
                             struct anx_bytes **bytes,
                             struct anx_error **error);

/**
 * Draws the radiograph with the answer's boxes, each labelled with its phrase, as "anatomix ask --overlay" does.
 *
 * answer: one to a study that was made with anx_perceive_options.keep_radiograph; the study need not exist any more. bytes: as that of
 * anx_study_overlay.
 * Fails with ANX_INVALID_ARGUMENT, also if the answer holds no radiograph, ANX_RADIOGRAPH_MEMORY, ANX_OUTPUT.
 */
anx_status anx_answer_overlay(const struct anx_answer *answer,
                              struct anx_bytes **bytes,
                              struct anx_error **error);

/**
 * Copies the study's radiograph as a display shows it, after modality LUT, VOI LUT or window, and polarity: 0 is black, as air, 1 is
 * white, and padding is 0.
 *
 * study: one that was made with anx_perceive_options.keep_radiograph. values: room for count numbers, which are written row by row from
 * the top. count: anx_study_width times anx_study_height.
 * Fails with ANX_INVALID_ARGUMENT, also if the study holds no radiograph or count is another number. Nothing is written then.
 */
anx_status anx_study_intensities(const struct anx_study *study,
                                 float *values,
                                 size_t count,
                                 struct anx_error **error);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif
