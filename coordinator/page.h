/* page: the files of the web page (coordinator/ui) as the build put them into the program. */
#ifndef COORDINATOR_PAGE_H
#define COORDINATOR_PAGE_H

#include "coordinator/api.h"

extern const struct api_asset page_assets[]; /* [page_n_asset] */
extern const int page_n_asset;

#endif
