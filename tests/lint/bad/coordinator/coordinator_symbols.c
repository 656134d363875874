/* coordinator_symbols: what the worker calls by mistake; calling down is right. */
int worker_serve(void);
int pool_open(void);
int pool_call(void);
int pool_open(void)
{
    return 1;
}
int pool_call(void)
{
    return worker_serve();
}
