-- A wholesaler's system of 1994 as it was moved to SQL: short names, no declared keys between tables.
-- SQL Server dialect. Written for adit.
CREATE TABLE [dbo].[TBL_CUST](
	[CUST_NO] [int] IDENTITY(1,1) NOT NULL,
	[NM1] [nvarchar](40) NULL,
	[STR] [nvarchar](40) NULL,
	[PLZ] [nvarchar](10) NULL,
	[REP_NO] [int] NULL,
 CONSTRAINT [PK_CUST] PRIMARY KEY CLUSTERED ([CUST_NO] ASC) WITH (PAD_INDEX = OFF) ON [PRIMARY]
) ON [PRIMARY]
GO
CREATE TABLE [dbo].[TBL_REP](
	[REP_NO] [int] NOT NULL,
	[NM1] [nvarchar](40) NULL,
	[PROV_PCT] [decimal](5, 2) NULL,
 CONSTRAINT [PK_REP] PRIMARY KEY CLUSTERED ([REP_NO] ASC)
) ON [PRIMARY]
GO
CREATE TABLE [dbo].[TBL_ART](
	[ART_NO] [int] NOT NULL,
	[BEZ] [nvarchar](60) NULL,
	[VK] [money] NULL,
	[ME] [char](3) NULL,
 CONSTRAINT [PK_ART] PRIMARY KEY CLUSTERED ([ART_NO] ASC)
) ON [PRIMARY]
GO
CREATE TABLE [dbo].[TBL_ORD](
	[ORD_NO] [int] NOT NULL,
	[CUST_NO] [int] NULL,
	[ORD_DT] [datetime] NULL,
	[STAT] [char](1) NULL,
 CONSTRAINT [PK_ORD] PRIMARY KEY CLUSTERED ([ORD_NO] ASC)
) ON [PRIMARY]
GO
CREATE TABLE [dbo].[TBL_ORD_POS](
	[ORD_NO] [int] NOT NULL,
	[POS] [smallint] NOT NULL,
	[ART_NO] [int] NULL,
	[MG] [decimal](9, 3) NULL,
	[PR] [money] NULL
) ON [PRIMARY]
GO
ALTER TABLE [dbo].[TBL_ORD_POS] WITH CHECK ADD CONSTRAINT [PK_ORD_POS] PRIMARY KEY CLUSTERED ([ORD_NO] ASC, [POS] ASC)
GO
CREATE TABLE [dbo].[ZZ_LOG]([TS] [datetime] NULL, [USR] [nvarchar](20) NULL, [TXT] [nvarchar](max) NULL)
GO
