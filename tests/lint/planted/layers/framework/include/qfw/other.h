/* other.h -- so that good.h has a neighbour. */
