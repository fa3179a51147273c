/* Prints the report of a radiograph: report BUNDLE IMAGE. */
#include <anatomix.h>
#include <stdio.h>

int main(int argc, char **argv) {
    anx_ask_options options = {0};
    anx_engine *engine = NULL;
    anx_study *study = NULL;
    anx_answer *answer = NULL;
    anx_error *error = NULL;
    int failed;

    if (argc != 3) {
        fprintf(stderr, "usage: %s BUNDLE IMAGE\n", argv[0]);
        return 2;
    }
    options.struct_size = sizeof options;
    options.task = "report";
    failed = anx_engine_open(argv[1], NULL, &engine, &error) != ANX_OK ||
             anx_study_from_file(engine, argv[2], NULL, &study, &error) != ANX_OK ||
             anx_study_ask(study, NULL, &options, &answer, &error) != ANX_OK;
    if (failed) {
        fprintf(stderr, "error: %s\n", anx_error_message(error));
    } else {
        puts(anx_answer_text(answer));
        /* An answer that a limit ended is a success, too. */
        if (anx_answer_finish(answer) != ANX_FINISH_END_OF_TURN) {
            fprintf(stderr, "note: the answer is incomplete\n");
        }
    }
    /* Freeing NULL does nothing. */
    anx_answer_free(answer);
    anx_study_free(study);
    anx_engine_free(engine);
    anx_error_free(error);
    return failed;
}
