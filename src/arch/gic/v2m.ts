/** GICv2m: a 4 KiB frame whose one writable register raises the SPI that is written to it (Arm SBSA, appendix E). */

export const V2M_SIZE = 0x1000;
export const V2M_MSI_TYPER = 0x008;
export const V2M_MSI_SETSPI_NS = 0x040;
export const V2M_MSI_IIDR = 0xfcc;

/** MSI_TYPER: base SPI 25:16, number of SPIs 9:0. */
export const v2mType = (spiBase: number, spiCount: number): number => (spiBase << 16) | spiCount;
export const v2mTypeBase = (typer: number): number => (typer >>> 16) & 0x3ff;
export const v2mTypeCount = (typer: number): number => typer & 0x3ff;
