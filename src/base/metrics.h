/* Metrics: counters, gauges and histograms, printed in Prometheus' text format (version 0.0.4).
 *
 * A metric is a static object registered on first use; updates are atomic and cheap. `labels` is the inside of the
 * braces, already escaped: `code="200"`, or NULL. Objects live as long as the process.
 */
#ifndef POLDER_BASE_METRICS_H
#define POLDER_BASE_METRICS_H

#include "base/buf.h"

#include <stdint.h>

typedef struct metric metric;
enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

/* Finds or makes the metric of that name and labels; never NULL (out of memory gives a sink that is not printed).
 * Histogram buckets are seconds: 0.001 · 2^k for k = 0..16. */
metric *metric_get(enum metric_kind kind, const char *name, const char *labels, const char *help);
void metric_add(metric *m, double v);     /* counter or gauge */
void metric_set(metric *m, double v);     /* gauge */
void metric_observe(metric *m, double v); /* histogram */
double metric_value(const metric *m);     /* counter or gauge; histogram: count */
void metrics_print(buf *out);

#endif
